"""Local stacks of a test's own, on free ports, that leave no process behind."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.local.credentials import load_credentials
from jobs.local.ports import WantedPorts
from jobs.local.postgres import create_cluster
from jobs.local.services import identify_stack
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
def empty_folder() -> Iterator[Path]:
    """Where a test may start a stack that has to make everything."""
    with make_stack_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A folder with the secrets and the database cluster of a stack that was never started."""
    with make_stack_folder() as folder:
        folder.mkdir()
        password = load_credentials(folder).postgres_password
        create_cluster(folder, password, identify_stack(folder), folder / "logs" / "initdb.log")
        yield folder


@pytest.fixture
def stack_folder(empty_folder: Path, cluster: Path) -> Path:
    """Where a test may start a stack, which finds its cluster and saves a second of `initdb`."""
    # Under root the cluster belongs to another user, which shutil would not keep.
    subprocess.run(["cp", "-a", str(cluster), str(empty_folder)], check=True)
    return empty_folder


@pytest.fixture(scope="module")
def storage_stack() -> Iterator[Path]:
    """A running database and bucket that the tests of a module share."""
    with make_stack_folder() as folder:
        start_stack(folder, WantedPorts(), None)
        yield folder
