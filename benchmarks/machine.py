"""Describe the machine and the software versions that figures depend on."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.code_version import read_code_version


def describe_machine() -> str:
    """Return the number of cores that this process may use and the processor's name."""
    return f"{len(os.sched_getaffinity(0))} cores of {_read_processor()}"


def read_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the commit of this project and the versions of the packages, if installed."""
    versions = {"commit": read_code_version()}
    for name in packages:
        # A missing package is not an error, because an error here would lose the figures of a long run.
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
