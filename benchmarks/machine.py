"""What a figure was measured on, and how several of them are shown."""

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def describe_machine(*packages: str) -> dict[str, object]:
    """Processor, cores that this process may use, and versions."""
    return {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in packages},
    }


def name_processor() -> str:
    """The model of this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def show_range(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
