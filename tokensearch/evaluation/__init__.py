"""One policy, measured on one model: its accuracy, its latency, its profile."""
