"""Benchmarks of training and of gates."""
