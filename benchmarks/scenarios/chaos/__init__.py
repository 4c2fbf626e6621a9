"""Test jobs with kills, a broken environment and hostile files: `python -m benchmarks.scenarios.chaos`."""
