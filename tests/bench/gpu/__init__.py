"""What a GPU has to say, in one command of under nine minutes."""
