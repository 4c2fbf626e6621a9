from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from fixtures.s3_server import S3Server
from jobs.storage.buckets import create_missing_buckets
from jobs.storage.uri import S3Uri

pytestmark = pytest.mark.usefixtures("aws_keys")


def test_missing_buckets_are_created_once(s3_server: S3Server) -> None:
    old, new = f"old-{uuid4().hex}", f"new-{uuid4().hex}"
    locations = [S3Uri(old, "some/prefix"), S3Uri(new, "")]
    assert create_missing_buckets(s3_server.url, locations[:1]) == [old]
    assert create_missing_buckets(s3_server.url, locations) == [new]
    assert (s3_server.buckets / new).is_dir()
    assert create_missing_buckets(s3_server.url, locations) == []


def test_one_bucket_for_both_is_created_once(s3_server: S3Server) -> None:
    name = f"both-{uuid4().hex}"
    assert create_missing_buckets(s3_server.url, [S3Uri(name, "a"), S3Uri(name, "b")]) == [name]


def test_other_refusals_are_not_taken_for_a_missing_bucket(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # boto3's own session would keep the keys that it has found.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "0" * 40)
    name = f"refused-{uuid4().hex}"
    with pytest.raises(ClientError, match="403"):
        create_missing_buckets(s3_server.url, [S3Uri(name, "")])
    assert not (s3_server.buckets / name).exists()


def test_nothing_is_created_on_aws() -> None:
    assert create_missing_buckets(None, [S3Uri("a", "")]) == []
