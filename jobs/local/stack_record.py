"""Remember the ports and processes of a local stack between commands, under a lock."""

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError
from jobs.local.ports import StackPorts
from jobs.local.private_files import write_private_file

_RECORD_FILE = "stack.json"


@dataclass(frozen=True)
class StackRecord:
    """``pids`` by service, of which some may have ended; Airflow's tables are those of ``airflow_version``."""

    ports: StackPorts
    pids: Mapping[str, int] = field(default_factory=dict)
    airflow_version: str | None = None


_ADAPTER = TypeAdapter(StackRecord)


def read_record(folder: Path) -> StackRecord | None:
    """The record of the stack in ``folder``, or None before its first start.

    Raises:
        PermanentError: the file is damaged.
    """
    path = folder / _RECORD_FILE
    if not path.exists():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValidationError:
        raise PermanentError(f"{path} is damaged: delete it, then run `python -m jobs stack down`") from None


def write_record(folder: Path, record: StackRecord) -> None:
    """Replace the record in one step."""
    write_private_file(folder / _RECORD_FILE, _ADAPTER.dump_json(record, indent=2).decode())


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
