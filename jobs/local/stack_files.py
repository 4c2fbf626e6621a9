"""Store the secrets, ports and process ids of a local stack in its folder, readable only by their owner."""

import base64
import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobs.errors import ConfigurationError
from jobs.local.ports import StackPorts

_CREDENTIALS_FILE = "secrets.json"
_RECORD_FILE = "stack.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StackCredentials:
    """The secrets of a stack. The S3 keys have the lengths of AWS keys; rclone rejects others."""

    postgres_password: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    airflow_password: str = field(repr=False)
    airflow_fernet_key: str = field(repr=False)
    airflow_session_key: str = field(repr=False)
    airflow_token_key: str = field(repr=False)

    @property
    def database_password(self) -> str:
        """Derive the password of the databases' owner. It does not reveal the superuser's password."""
        return hashlib.sha256(f"owner of the databases {self.postgres_password}".encode()).hexdigest()


@dataclass(frozen=True)
class StackRecord:
    """The state of a stack between commands.

    Processes in ``pids`` may have ended. ``airflow_version`` is the version that last migrated Airflow's tables.
    """

    ports: StackPorts
    pids: Mapping[str, int] = field(default_factory=dict)
    airflow_version: str | None = None


_CREDENTIALS = TypeAdapter(StackCredentials)
_RECORD = TypeAdapter(StackRecord)


def read_credentials(folder: Path) -> StackCredentials | None:
    """Return the secrets of the stack in ``folder``, or None before its first start.

    Raises:
        ConfigurationError: the file is damaged.
    """
    path = folder / _CREDENTIALS_FILE
    if not path.exists():
        return None
    try:
        return _CREDENTIALS.validate_json(path.read_bytes())
    except ValidationError:
        raise ConfigurationError(
            f"{path} is damaged: restore it, or delete {folder} to start with an empty stack"
        ) from None


def load_credentials(folder: Path) -> StackCredentials:
    """Return the secrets of the stack in ``folder``. Generate them on its first start."""
    credentials = read_credentials(folder)
    if credentials is None:
        credentials = _generate_credentials()
        write_private_file(folder / _CREDENTIALS_FILE, _CREDENTIALS.dump_json(credentials, indent=2).decode())
    return credentials


def _generate_credentials() -> StackCredentials:
    return StackCredentials(
        postgres_password=secrets.token_hex(24),
        s3_access_key=secrets.token_hex(10).upper(),
        s3_secret_key=secrets.token_hex(20),
        airflow_password=secrets.token_urlsafe(12),
        airflow_fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        airflow_session_key=secrets.token_hex(32),
        airflow_token_key=secrets.token_hex(64),
    )


def read_record(folder: Path) -> StackRecord | None:
    """Return the record of the stack in ``folder``, or None before its first start.

    Raises:
        ConfigurationError: the file is damaged.
    """
    path = folder / _RECORD_FILE
    if not path.exists():
        return None
    try:
        return _RECORD.validate_json(path.read_bytes())
    except ValidationError:
        raise ConfigurationError(f"{path} is damaged: delete it, then run `catalog stack down`") from None


def write_record(folder: Path, record: StackRecord) -> None:
    """Replace the record atomically."""
    write_private_file(folder / _RECORD_FILE, _RECORD.dump_json(record, indent=2).decode())


def write_private_file(path: Path, text: str) -> None:
    """Replace ``path`` atomically with a file that only its owner can read."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


@contextmanager
def hold_lock(path: Path, reason: str) -> Iterator[None]:
    """Let one process enter at a time. The others log ``reason`` and wait. The lock is released if the process ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting: %s", reason)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
