"""Benchmarks of the nightly ingest: throughput, discovery, decoding, memory, a whole night in Airflow."""
