"""Create temporary folders, and delete folders that killed jobs left."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "catalog-tagger-"
_LOCK = "lock"
_YOUNG_SECONDS = 60
"""Folders newer than this are kept, because the job that creates one may not have locked it yet."""


@contextmanager
def open_scratch(parent: Path | None = None) -> Iterator[Path]:
    """Create an empty folder, by default in the temporary directory, and delete it at the end.

    First delete the folders of killed jobs.
    """
    parent = parent or Path(tempfile.gettempdir())
    _delete_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name, (Path(name) / _LOCK).open("w") as lock:
        # The kernel releases the lock when the process ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(name) / "files"
        folder.mkdir()
        yield folder


def _delete_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            state = folder.lstat()
            is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
            if is_ours and time.time() - state.st_mtime >= _YOUNG_SECONDS:
                _delete_unless_locked(folder)


def _delete_unless_locked(folder: Path) -> None:
    """Delete the folder. Raise OSError if a job is using it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
