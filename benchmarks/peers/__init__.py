"""Other libraries that run the same models on the same images, each measured in a process of its own.

They read files and keep predictions in memory, without the bucket and the database of our pipeline. Modules that run as
peers import nothing from `jobs`, because they also run in an environment with only their own packages.
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

# Most packages read them when they are imported, and this module is imported first.
os.environ.update(QUIET)
