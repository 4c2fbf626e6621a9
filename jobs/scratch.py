"""Temporary folders that a killed job leaves behind only until the next one starts."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "catalog-tagger-"
_LOCK = "lock"
_YOUNG_SECONDS = 60
"""A folder this young may belong to a job that is about to lock it."""


@contextmanager
def open_scratch(parent: Path | None = None) -> Iterator[Path]:
    """Make an empty folder, by default where the system has temporary files; delete it at the end.

    Folders whose jobs were killed are deleted first.
    """
    parent = parent or Path(tempfile.gettempdir())
    _delete_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name, (Path(name) / _LOCK).open("w") as lock:
        # The kernel releases it with the process, however that ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(name) / "files"
        folder.mkdir()
        yield folder


def _delete_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
                continue
            with (folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except OSError:
            # In use, another user's, or just deleted by another job.
            continue
