"""Benchmarks of whole scenarios: the first run, the quality of the demo's models, and faults."""
