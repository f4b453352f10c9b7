"""A search run, reported: sentences, tables, plots, pages."""
