"""Benchmarks of search in Postgres: recall, latency, a switch of the encoder."""
