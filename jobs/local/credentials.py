"""The secrets of a local stack: generated once, kept beside its data."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError
from jobs.local.private_files import write_private_file

_CREDENTIALS_FILE = "secrets.json"


@dataclass(frozen=True)
class StackCredentials:
    """One set of secrets; the S3 keys have the lengths of AWS keys, without which rclone refuses every call."""

    postgres_password: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    airflow_password: str = field(repr=False)
    airflow_fernet_key: str = field(repr=False)
    airflow_session_key: str = field(repr=False)
    airflow_token_key: str = field(repr=False)

    @property
    def database_password(self) -> str:
        """Of the role that owns the databases; it does not tell the superuser's."""
        return hashlib.sha256(f"owner of the databases {self.postgres_password}".encode()).hexdigest()


_ADAPTER = TypeAdapter(StackCredentials)


def read_credentials(folder: Path) -> StackCredentials | None:
    """The secrets of the stack in ``folder``, or None before its first start.

    Raises:
        PermanentError: the file is damaged.
    """
    path = folder / _CREDENTIALS_FILE
    if not path.exists():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValidationError:
        raise PermanentError(
            f"{path} is damaged: restore it, or delete {folder} to start with an empty stack"
        ) from None


def load_credentials(folder: Path) -> StackCredentials:
    """The secrets of the stack in ``folder``, generated at its first start."""
    credentials = read_credentials(folder)
    if credentials is None:
        credentials = _generate_credentials()
        write_private_file(folder / _CREDENTIALS_FILE, _ADAPTER.dump_json(credentials, indent=2).decode())
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
