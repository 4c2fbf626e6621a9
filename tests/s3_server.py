"""A real S3 endpoint for the tests: rclone over a folder, in which each bucket is a folder."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

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
    credentials = load_credentials(folder)
    while True:
        port = choose_ports(WantedPorts(), None).s3
        command, environment = (
            make_s3_service(folder, port, credentials).command,
            make_s3_environment(port, credentials),
        )
        with subprocess.Popen(
            command.words, env=dict(command.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                if _wait_until_it_answers(environment):
                    yield S3Server(environment["CATALOG_S3_ENDPOINT_URL"], folder / "buckets", environment)
                    return
            finally:
                process.kill()


def _wait_until_it_answers(environment: dict[str, str]) -> bool:
    """False where a server of somebody else, who was given the same free port, answers instead."""
    client = boto3.client(
        "s3",
        endpoint_url=environment["CATALOG_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            client.list_buckets()
        except EndpointConnectionError:
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.05)
        except ClientError:
            return False
        else:
            return True
