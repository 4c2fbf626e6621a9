"""A real S3 endpoint for the tests: rclone over a folder, in which each bucket is a folder."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from jobs.local.credentials import load_credentials
from jobs.local.ports import WantedPorts, choose_ports
from jobs.local.s3_endpoint import make_s3_environment, make_s3_service


@dataclass(frozen=True)
class S3Server:
    """Where it is, where it keeps its buckets, and the variables that a client needs."""

    url: str
    buckets: Path
    environment: dict[str, str]


@contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    """Serve ``folder/buckets`` until the end of the block."""
    (folder / "buckets").mkdir(parents=True)
    credentials, port = load_credentials(folder), choose_ports(WantedPorts(), None).s3
    command = make_s3_service(folder, port, credentials).command
    environment = make_s3_environment(port, credentials)
    with subprocess.Popen(
        command.words, env=dict(command.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_until_it_answers(environment["CATALOG_S3_ENDPOINT_URL"])
            yield S3Server(environment["CATALOG_S3_ENDPOINT_URL"], folder / "buckets", environment)
        finally:
            process.kill()


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.05)
        else:
            return
