"""What a test looks at in a running stack."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psutil
from dotenv import dotenv_values

from jobs.local.stack import read_status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def read_environment(folder: Path) -> dict[str, str]:
    """The variables that the stack hands to the jobs."""
    return {name: value for name, value in dotenv_values(folder / "stack.env").items() if value is not None}


@contextmanager
def connect_s3(folder: Path, secret: str | None = None) -> "Iterator[S3Client]":
    """A client with the stack's keys, or with a wrong ``secret``."""
    environment = read_environment(folder)
    client = boto3.client(
        "s3",
        endpoint_url=environment["CATALOG_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret or environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    with closing(client):
        yield client


def read_pids(folder: Path) -> dict[str, int]:
    """The pids of the services that run."""
    return {service.name: service.pid for service in read_status(folder).services if service.pid is not None}


def find_listening_addresses(processes: list[psutil.Process]) -> set[str]:
    """The addresses on which any of the processes waits for connections; of another user's, it may not be shown."""
    addresses = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            connections = process.net_connections("inet")
            addresses |= {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}
    return addresses


def find_addresses_of_port(port: int) -> set[str]:
    """The addresses on which anybody waits for connections to the port."""
    listening = [found.laddr for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
    return {address.ip for address in listening if address and address.port == port}


def find_readable_files(folder: Path, names: list[str]) -> list[str]:
    """Those of the files that others than their owner may read."""
    return [name for name in names if (folder / name).stat().st_mode & 0o077]
