"""Check the restrictions of a confined process."""

import os
import subprocess
import sys

import pytest

from jobs.settings import PROJECT_ROOT

CONFINED = """
import os, resource, socket, sys
from jobs.models.unpickle import confine, leave_network
{before}
confine(seconds=60, more_memory_bytes=2**27, file_bytes=2**20)
def attempt(action):
    try:
        action()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "done"
print(attempt(lambda: socket.socket()))
print(attempt(lambda: socket.socket(socket.AF_UNIX)))
print(attempt(lambda: open("/etc/hostname")))
print(attempt(lambda: os.pipe()))
print(attempt(lambda: bytearray(2**28)))
print(attempt(lambda: bytearray(2**26)))
print(attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))))
"""
NOTHING = ["OSError", "OSError", "OSError", "OSError", "MemoryError", "done", "ValueError"]


def run(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CONFINED.format(before=before)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_confined_process_has_no_network_no_files_and_limited_memory() -> None:
    finished = run("leave_network()")
    assert finished.stdout.split() == NOTHING, finished.stderr


def test_without_a_namespace_the_limits_suffice_or_the_process_exits() -> None:
    """Confine a process without a new namespace, which the default seccomp filter of containers forbids."""
    finished = run("")
    if finished.returncode == 0:
        assert finished.stdout.split() == NOTHING
    else:
        # Root may raise the limits, so they do not suffice.
        assert os.geteuid() == 0
        assert finished.stderr.startswith("the process cannot be isolated from the network")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_limits_suffice_for_a_user_other_than_root() -> None:
    finished = run("os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    assert finished.stdout.split() == NOTHING, finished.stderr
