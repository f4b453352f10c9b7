"""The end of a search: select, confirm, compare with alternatives, write."""
