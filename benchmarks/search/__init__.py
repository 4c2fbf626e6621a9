"""Benchmarks of search in Postgres: recall, latency, a switch to another encoder."""
