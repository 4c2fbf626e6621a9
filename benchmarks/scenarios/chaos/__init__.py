"""Kills, broken surroundings and hostile files, and what they cost: `python -m benchmarks.scenarios.chaos`."""
