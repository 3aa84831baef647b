"""Benchmarks: how fast galpaca is beside what a user would take instead, and against the machine's limits."""
