"""Start local stacks for tests on free ports, and stop them afterwards."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.local.ports import WantedPorts
from jobs.local.postgres import create_cluster
from jobs.local.services import identify_stack
from jobs.local.stack import start_stack, stop_stack
from jobs.local.stack_files import load_credentials


@contextmanager
def make_stack_folder() -> Iterator[Path]:
    """Yield a folder that does not exist yet; stop its stack and delete it at the end.

    Not below pytest's folder: every other run of pytest makes that inaccessible to the user that Postgres runs as
    under root.
    """
    parent = Path(tempfile.mkdtemp(prefix="stack-"))
    try:
        yield parent / "stack"
    finally:
        stop_stack(parent / "stack")
        shutil.rmtree(parent)


@pytest.fixture
def empty_folder() -> Iterator[Path]:
    """Yield a folder for a stack that starts from nothing."""
    with make_stack_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """Yield the folder of a stack that has secrets and a database cluster but was never started."""
    with make_stack_folder() as folder:
        folder.mkdir()
        password = load_credentials(folder).postgres_password
        create_cluster(folder, password, identify_stack(folder), folder / "logs" / "initdb.log")
        yield folder


@pytest.fixture
def stack_folder(empty_folder: Path, cluster: Path) -> Path:
    """Return a folder for a stack that has a cluster already, which saves a second of `initdb`."""
    # Under root the cluster belongs to another user; shutil would not preserve the owner.
    subprocess.run(["cp", "-a", str(cluster), str(empty_folder)], check=True)
    return empty_folder


@pytest.fixture(scope="module")
def storage_stack() -> Iterator[Path]:
    """Start Postgres and S3 for all tests of a module."""
    with make_stack_folder() as folder:
        start_stack(folder, WantedPorts(), None)
        yield folder
