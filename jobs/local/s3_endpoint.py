"""The S3 endpoint of the local stack: ``rclone serve s3`` over a folder in which each bucket is a folder."""

import sysconfig
from pathlib import Path

from jobs.local.credentials import StackCredentials
from jobs.local.ports import LOOPBACK, is_port_open
from jobs.local.services import Command, Service

S3_ENDPOINT = "s3"
SOURCE_BUCKET = "photos"
ARTIFACTS_BUCKET = "artifacts"


def create_buckets(folder: Path) -> None:
    """Create the two buckets that the settings of the local stack name."""
    for bucket in (SOURCE_BUCKET, ARTIFACTS_BUCKET):
        (_locate_buckets(folder) / bucket).mkdir(parents=True, exist_ok=True)


def make_s3_service(folder: Path, port: int, credentials: StackCredentials) -> Service:
    """The server; what is written straight into a bucket's folder shows after ten seconds at the latest."""
    rclone = Path(sysconfig.get_path("scripts")) / "rclone"
    buckets = _locate_buckets(folder)
    # The cache of folders renews itself: every second that takes a third of a core for 1,000 photos, at 0 s all of it.
    options = ("--addr", f"{LOOPBACK}:{port}", "--etag-hash", "MD5", "--dir-cache-time", "10s", "--poll-interval", "0")
    # The keys travel in the environment: a command line can be read by everybody on the machine.
    environment = {
        "RCLONE_AUTH_KEY": f'"{credentials.s3_access_key},{credentials.s3_secret_key}"',
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CACHE_DIR": str(folder.resolve() / "s3-cache"),
    }
    return Service(
        S3_ENDPOINT,
        Command((str(rclone), "serve", "s3", *options, str(buckets)), environment, buckets),
        lambda _process: is_port_open(port),
        port,
        "CATALOG_S3_PORT",
    )


def make_s3_environment(port: int, credentials: StackCredentials) -> dict[str, str]:
    """What the settings of the jobs and boto3 need to find the endpoint and its two buckets."""
    return {
        "CATALOG_SOURCE_URI": f"s3://{SOURCE_BUCKET}/",
        "CATALOG_ARTIFACTS_URI": f"s3://{ARTIFACTS_BUCKET}/",
        "CATALOG_S3_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
        "AWS_ACCESS_KEY_ID": credentials.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _locate_buckets(folder: Path) -> Path:
    return folder.resolve() / "buckets"
