"""Hides the developer's settings from the suite and from the processes that it starts, as soon as it is imported.

`jobs.settings` reads the folder of ``.env`` and ``.local`` when it is imported, so this module comes first.
"""

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

SETTINGS = ("CATALOG_", "AWS_", "AIRFLOW", "PG")
INPUTS_OF_TESTS = {"CATALOG_REAL_PHOTOS", "CATALOG_PRETRAINED_WEIGHTS"}
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 3 * 1024**3


def _keep_files_in_memory() -> None:
    """Put temporary files in memory if there is room: creating them on some disks takes minutes of a run."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tests-", dir=MEMORY)
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)


def _hide_settings() -> None:
    for name in os.environ.keys() - INPUTS_OF_TESTS:
        if name.startswith(SETTINGS):
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["CATALOG_HOME"] = home
    # Profiles of the developer's own.
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        os.environ[name] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # Read when torch is imported. Every core has a test of its own, and threads that spin while they wait for a core
    # would take that of another.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ["OMP_NUM_THREADS"] = "1"


@contextmanager
def keep_process_state() -> Iterator[None]:
    """Fail where a test leaves something to the next; restore what jobs set for the rest of their process."""
    before = _read_process_state()
    torch, max_pixels = sys.modules.get("torch"), Image.MAX_IMAGE_PIXELS
    threads = torch.get_num_threads() if torch else None
    if torch:
        # Random weights and a head that is fitted on them: the same whatever ran before.
        torch.manual_seed(0)
    yield
    Image.MAX_IMAGE_PIXELS = max_pixels
    if torch:
        torch.set_num_threads(threads)
    after = _read_process_state()
    changed = {name: (value, after[name]) for name, value in before.items() if value != after[name]}
    assert not changed, f"the test leaves changes to the next: {changed}"


def _read_process_state() -> dict[str, object]:
    umask = os.umask(0)
    os.umask(umask)
    return {
        "settings": {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)},
        "folder": Path.cwd(),
        "umask": umask,
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "logging": (logging.root.level, logging.root.manager.disable),
    }


_keep_files_in_memory()
_hide_settings()
