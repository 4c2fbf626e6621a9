"""Benchmarks of the nightly ingest: decoding, forward pass, discovery, memory, the whole night."""
