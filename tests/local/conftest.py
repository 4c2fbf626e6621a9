"""Local stacks of a test's own, on free ports, that leave no process behind."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack


@contextmanager
def make_stack_folder() -> Iterator[Path]:
    """A folder that does not exist yet; what runs in it at the end is ended, and it is deleted.

    Not in pytest's folder, which every other run of pytest closes to the system user that Postgres needs under root.
    """
    parent = Path(tempfile.mkdtemp(prefix="stack-"))
    try:
        yield parent / "stack"
    finally:
        stop_stack(parent / "stack")
        shutil.rmtree(parent)


@pytest.fixture
def stack_folder() -> Iterator[Path]:
    """Where a test may start a stack."""
    with make_stack_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def storage_stack() -> Iterator[Path]:
    """A running database and bucket that the tests of a module share."""
    with make_stack_folder() as folder:
        start_stack(folder, WantedPorts(), None)
        yield folder
