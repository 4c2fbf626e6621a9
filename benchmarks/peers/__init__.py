"""Other ways to get the same answers from the same models, each measured in a process of its own.

Files on disk in, answers in memory: no bucket and no database, which our own pipeline has besides. The modules that run
as peers import nothing of `jobs`, so that they also run in an environment that has only their own packages.
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
"""No telemetry, no network, no progress bars."""

# Here, since most of these are read when the packages are imported, and this module comes before them.
os.environ.update(QUIET)
