"""Describe the processor: its name, and the number of cores that this process may use."""

import math
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@cache
def count_cores() -> int:
    """Return the number of cores that the affinity and the CPU limit of the container allow, at least 1."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), read_cpu_limit(CGROUPS, MEMBERSHIP))))


def read_cpu_limit(cgroups: Path, membership: Path) -> float:
    """Return the tightest CPU limit, in cores, of the cgroups that contain this process. Infinite without a limit."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one hierarchy without named controllers, version 1 one per controller.
        root = cgroups if not controllers else cgroups / "cpu"
        if not controllers or "cpu" in controllers.split(","):
            limits += [_read_limit(folder) for folder in _list_ancestors(root, path)]
    return min(limits)


def _list_ancestors(root: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup and its parents. In a container, only the root of the hierarchy may be visible."""
    folder = root / path.lstrip("/")
    yield folder
    yield from (parent for parent in folder.parents if parent == root or root in parent.parents)


def _read_limit(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
        # Version 2 writes "max" for no limit, version 1 writes -1.
        return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def describe_processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
