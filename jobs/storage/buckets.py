"""Create the buckets that the settings name at an S3 endpoint of one's own; those on AWS are left to their owner."""

from collections.abc import Iterable

from botocore.config import Config
from botocore.exceptions import ClientError

from jobs.storage.credentials import AwsCredentials
from jobs.storage.uri import S3Uri


def create_missing_buckets(
    endpoint_url: str | None, locations: Iterable[S3Uri], credentials: AwsCredentials | None = None
) -> list[str]:
    """Create the buckets of these locations, unless they exist; returns those that are new."""
    if endpoint_url is None:
        return []
    session = (credentials or AwsCredentials()).open_session()
    client = session.client("s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": "path"}))
    missing = []
    for bucket in sorted({location.bucket for location in locations}):
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            client.create_bucket(Bucket=bucket)
            missing.append(bucket)
    return missing
