"""Benchmarks of training, and of the candidates that gates accept."""
