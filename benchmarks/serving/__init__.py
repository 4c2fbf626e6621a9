"""Benchmarks of the query service and of the pages."""
