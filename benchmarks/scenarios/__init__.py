"""Whole scenarios: the first run, the demo's answers, faults."""
