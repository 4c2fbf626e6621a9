"""Count cores by affinity and by the CPU limit of the container."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cores import count_cores, read_cpu_limit
from jobs.settings import PROJECT_ROOT


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/pod/job\n", {"pod/cpu.max": "400000 100000\n", "pod/job/cpu.max": "max 100000\n"}, 4),
        ("0::/pod/job\n", {"pod/cpu.max": "400000 100000\n", "pod/job/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/outside\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("3:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {}, math.inf),
    ],
    ids=["v2", "v2-none", "v2-parent", "v2-own", "v2-namespace", "v1", "v1-none", "damaged", "missing"],
)
def test_the_tightest_limit_counts(tmp_path: Path, membership: str, files: dict[str, str], limit: float) -> None:
    cgroups = write_files(tmp_path / "cgroup", files)
    cgroups.mkdir(exist_ok=True)
    write_files(tmp_path, {"membership": membership})
    assert read_cpu_limit(cgroups, tmp_path / "membership") == limit


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert read_cpu_limit(tmp_path, tmp_path / "missing") == math.inf


def test_the_affinity_counts() -> None:
    assert 1 <= count_cores() <= len(os.sched_getaffinity(0))
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from jobs.cores import count_cores; print(count_cores())"
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout == "1\n"
