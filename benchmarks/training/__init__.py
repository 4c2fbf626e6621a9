"""Benchmarks of training, and of what the gates let through."""
