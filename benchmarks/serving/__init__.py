"""Benchmarks of the query service and the pages."""
