"""Kills, a broken environment and hostile files: `python -m benchmarks.scenarios.chaos`."""
