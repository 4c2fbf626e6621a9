"""Measure other libraries with the same models and images, each in its own process.

These peers read files and keep predictions in memory, without a bucket or a database. Modules that run as peers import
nothing from `jobs`, because they also run in an environment that has only their own packages.
"""

import os

QUIET = {
    "DAFT_PROGRESS_BAR": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Variables that disable telemetry, network access and progress bars."""

# Set here, because most packages read them on import and this module is imported first.
os.environ.update(QUIET)
