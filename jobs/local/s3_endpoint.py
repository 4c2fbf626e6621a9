"""Start the S3 endpoint of the local stack: ``rclone serve s3`` on a folder with a subfolder for each bucket."""

import sysconfig
from pathlib import Path

from jobs.local.ports import LOOPBACK, is_port_open
from jobs.local.services import Command, Service
from jobs.local.stack_files import StackCredentials

S3_ENDPOINT = "s3"
SOURCE_BUCKET = "images"
ARTIFACTS_BUCKET = "artifacts"


def create_buckets(folder: Path) -> None:
    """Create the two buckets that the jobs of the local stack use."""
    for bucket in (SOURCE_BUCKET, ARTIFACTS_BUCKET):
        (_locate_buckets(folder) / bucket).mkdir(parents=True, exist_ok=True)


def make_s3_service(folder: Path, port: int, credentials: StackCredentials) -> Service:
    """Describe the server. Files written directly into a bucket's folder show up within ten seconds."""
    rclone = Path(sysconfig.get_path("scripts")) / "rclone"
    buckets = _locate_buckets(folder)
    # Refreshing the directory cache every second takes a third of a core for 1,000 images; at 0 s, a whole core.
    options = ("--addr", f"{LOOPBACK}:{port}", "--etag-hash", "MD5", "--dir-cache-time", "10s", "--poll-interval", "0")
    # Pass the keys in the environment, because every user of the machine can read command lines.
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
    """Return the variables that tell jobs and boto3 about the endpoint and its two buckets."""
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
