"""Benchmarks of crossjit: each script's docstring says what it measures and how to call it."""
