"""The quick way to read an object, and when it is left for the thorough one."""

import hashlib
from uuid import uuid4

import boto3
import pytest

from fixtures.s3_server import S3Server
from jobs.storage import quick_reader
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore
from jobs.storage.quick_reader import QuickReader

pytestmark = pytest.mark.usefixtures("aws_keys")

BODY = b"bytes of an image"
ETAG = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def store(s3_server: S3Server) -> ObjectStore:
    return ObjectStore(s3_server.url)


@pytest.fixture
def bucket(store: ObjectStore) -> S3Uri:
    name = f"quick-{uuid4().hex[:12]}"
    store._client.create_bucket(Bucket=name)
    return S3Uri(name, "")


@pytest.fixture
def reader(s3_server: S3Server) -> QuickReader:
    return QuickReader(boto3.Session(), s3_server.url, 5, 30)


def test_only_the_listed_version_is_read(reader: QuickReader, store: ObjectStore, bucket: S3Uri) -> None:
    for key in ("1.jpg", "deep/er/ünï 写真+%41#?.jpg"):
        store.write(bucket / key, BODY)
        assert reader.read(bucket / key, ETAG, len(BODY)) == BODY
    assert reader.read(bucket / "1.jpg", "other", len(BODY)) is None
    assert reader.read(bucket / "1.jpg", ETAG, len(BODY) - 1) is None
    assert reader.read(bucket / "gone.jpg", ETAG, len(BODY)) is None


@pytest.mark.parametrize("key", ["a//b.jpg", "../b.jpg", "/b.jpg", "a/./b.jpg"])
def test_keys_that_obstore_refuses_return_none(reader: QuickReader, bucket: S3Uri, key: str) -> None:
    assert reader.read(S3Uri(bucket.bucket, key), ETAG, 100) is None


def test_an_invalid_bucket_name_returns_none(reader: QuickReader) -> None:
    assert reader.read(S3Uri("no bucket", "1.jpg")) is None


def test_the_store_reads_without_boto3(store: ObjectStore, bucket: S3Uri, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(bucket / "1.jpg", BODY)
    monkeypatch.setattr(store, "_client", None)
    assert store.read_unchanged(bucket / "1.jpg", ETAG, 100) == store.read(bucket / "1.jpg") == BODY


def test_boto3_takes_over_after_too_many_fallbacks(
    store: ObjectStore, bucket: S3Uri, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(bucket / "1.jpg", BODY)
    # As if there were a proxy that only boto3 knows of.
    store._quick_reader._endpoint_url = "http://127.0.0.1:9"
    for _ in range(quick_reader.MAX_FALLBACKS // 2):
        assert store.read_unchanged(bucket / "1.jpg", ETAG, 100) == store.read(bucket / "1.jpg") == BODY
    assert "obstore cannot read this bucket" in caplog.text
    monkeypatch.setattr(store._quick_reader, "_open", None)
    assert store.read_unchanged(bucket / "1.jpg", ETAG, 100) == store.read(bucket / "1.jpg") == BODY
