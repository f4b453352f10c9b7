"""Benchmarks: they print and never fail. `python -m tests.bench NAME [--json]`."""
