"""Benchmarks of whole scenarios: the first run, the demo's models, faults."""
