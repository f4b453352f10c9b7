"""Records in, words and pictures out. Reads files alone, so a report can be redrawn anywhere."""
