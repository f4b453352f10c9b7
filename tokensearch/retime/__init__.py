"""Time again what a finished run knows: another target, another cell, a whole front."""
