"""One search by several processes, which share a study in a database."""
