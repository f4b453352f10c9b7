"""Statistics on plain numbers: bootstrap intervals, proportions."""
