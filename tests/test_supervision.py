"""Check that no server outlives the tests or the benchmark that started it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from fixtures.supervision import PATIENCE_SECONDS, SUPERVISED_VARIABLE
from jobs.local.services import is_alive
from jobs.settings import PROJECT_ROOT
from tests.stopped_session import SERVERS

START_SECONDS = 180.0


@contextmanager
def start(*words: str) -> "Iterator[subprocess.Popen[str]]":
    """Start tests or a benchmark like a user does, outside of the supervision of this test run."""
    ours = {SUPERVISED_VARIABLE, *(name for name in os.environ if name.startswith(("PYTEST_", "COV_")))}
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=PROJECT_ROOT,
        env={name: value for name, value in os.environ.items() if name not in ours},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as session:
        try:
            yield session
        finally:
            session.terminate()


def read_servers(session: "subprocess.Popen[str]") -> dict[int, str]:
    """Return the processes that the session lists, by pid."""
    assert session.stdout is not None
    for line in session.stdout:
        _, begin, rest = line.partition(SERVERS)
        if begin:
            return {int(pid): name for pid, name in json.loads(rest).items()}
    raise AssertionError("the session ended before its servers ran")


def list_survivors(pids: dict[int, str]) -> dict[int, str]:
    """Return the processes that are still running after the time that they have to end."""
    deadline = time.monotonic() + PATIENCE_SECONDS + 30
    while (living := {pid: name for pid, name in pids.items() if runs(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    return living


def runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return is_alive(psutil.Process(pid))
    return False


@pytest.mark.parametrize("name", ["test_hang", "test_hang_too_long"])
def test_servers_end_with_interrupted_tests(name: str) -> None:
    with start("-m", "pytest", "-s", "-p", "no:cacheprovider", f"tests/stopped_session.py::{name}") as session:
        servers = read_servers(session)
        if name == "test_hang":
            session.send_signal(signal.SIGTERM)
        assert list_survivors(servers) == {}
    programs = Counter(servers.values())
    assert programs["rclone"] == 2
    assert programs["postgres"] > 2
    assert session.returncode not in {0, None}


def test_servers_end_with_an_interrupted_benchmark() -> None:
    with start("-m", "benchmarks.ingest.discover", "--images", "1000000") as session:
        servers = wait_for_servers(session)
        session.send_signal(signal.SIGTERM)
        assert list_survivors(servers) == {}
    assert session.returncode not in {0, None}


def wait_for_servers(session: "subprocess.Popen[str]") -> dict[int, str]:
    """Return the child processes of a benchmark once its stack is running."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        below = psutil.Process(session.pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            found = {process.pid: process.name() for process in below}
            if {"postgres", "rclone"} <= set(found.values()):
                return found
        time.sleep(0.05)
    raise AssertionError("the benchmark started no servers in time")
