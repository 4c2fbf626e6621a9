"""Benchmarks of search in Postgres: recall, latency, and a switch to another encoder."""
