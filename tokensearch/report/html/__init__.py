"""The report of a run as one page for a browser: no network, readable without its script."""
