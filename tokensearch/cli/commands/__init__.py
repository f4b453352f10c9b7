"""One file per command: read, hand over, render; nothing is computed here."""
