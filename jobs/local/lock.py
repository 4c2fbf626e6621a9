"""A lock between commands on this machine."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def hold_lock(path: Path, reason: str) -> Iterator[None]:
    """Let one process at a time in; the lock ends with its process, and ``reason`` says who has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting: %s", reason)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
