"""Benchmarks, run from the root of the repository as python -m benchmarks.NAME; results in benchmarks/results."""
