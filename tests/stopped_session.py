"""Tests that `test_supervision.py` stops: they start a server of each kind, name them, and hang."""

import json
import os
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack
from tests.local.conftest import make_stack_folder
from tests.s3_server import S3Server

SERVERS = "servers: "
"""Begins the line that names them."""


@pytest.fixture
def pids(postgres_server: str, s3_server: S3Server) -> Iterator[dict[int, str]]:
    """The processes that run, by their numbers."""
    with make_stack_folder() as folder:
        start_stack(folder, WantedPorts(), None)
        supervisor = psutil.Process(os.getppid())
        yield {process.pid: process.name() for process in supervisor.children(recursive=True)}


def test_hang(pids: dict[int, str]) -> None:
    hang(pids)


@pytest.mark.timeout(1, method="thread", func_only=True)
def test_hang_too_long(pids: dict[int, str]) -> None:
    hang(pids)


def hang(pids: dict[int, str]) -> None:
    sys.stdout.write(f"{SERVERS}{json.dumps(pids)}\n")
    sys.stdout.flush()
    time.sleep(600)
