"""List, read and write objects, and tell errors of one object from errors of the bucket."""

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import patch
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from fixtures.s3_server import S3Server
from jobs.errors import PermanentError, RetryableError
from jobs.failures import ReadReason
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ListedObject, ObjectStore, create_missing_buckets

pytestmark = pytest.mark.usefixtures("aws_keys")

BODY = b"bytes of an image"
ETAG = hashlib.md5(BODY).hexdigest()
ODD_KEYS = [
    "with space.jpg",
    " leading and trailing .jpg",
    "quote'\"`.jpg",
    "ünï-写真-👗.jpg",
    "percent%41.jpg",
    "percent%",
    "plus+plus.jpg",
    "hash#tag.jpg",
    "what?size=1&x=2.jpg",
    "semi;colon=,$@!~*().jpg",
    "back\\slash.jpg",
    "deep/er/image.jpg",
]
ACTS: dict[str, Callable[[ObjectStore, S3Uri, Path], object]] = {
    "list": lambda store, location, path: list(store.list_pages(location)),
    "read_unchanged": lambda store, location, path: store.read_unchanged(location, ETAG, 100),
    "read": lambda store, location, path: store.read(location),
    "read_if_present": lambda store, location, path: store.read_if_present(location),
    "download": lambda store, location, path: store.download(location, path),
    "write": lambda store, location, path: store.write(location, BODY),
    "upload": lambda store, location, path: store.upload(path, location),
}


@pytest.fixture
def store(s3_server: S3Server) -> ObjectStore:
    return ObjectStore(s3_server.url)


@pytest.fixture
def bucket(store: ObjectStore) -> S3Uri:
    name = f"storage-{uuid4().hex[:12]}"
    store._client.create_bucket(Bucket=name)
    return S3Uri(name, "")


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    path.write_bytes(BODY)
    return path


@contextmanager
def serve_response(status: int, body: bytes, promised_bytes: int | None = None) -> Iterator[str]:
    """Serve one response to every request; it ends early if ``promised_bytes`` is larger. Yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("ETag", f'"{ETAG}"')
            self.send_header("Content-Length", str(promised_bytes or len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def change_environment(changes: dict[str, str]) -> Iterator[None]:
    """Other variables for boto3, which otherwise remembers the first that it saw."""
    with patch.dict(os.environ, changes), patch.object(boto3, "DEFAULT_SESSION", None):
        yield


def make_error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>slow down</Message></Error>'.encode()


def test_a_listing_of_several_pages_keeps_the_order(store: ObjectStore, bucket: S3Uri) -> None:
    for number in reversed(range(1003)):
        store.write(bucket / f"{number:05}.jpg", BODY)
    pages = list(store.list_pages(bucket))
    assert [len(page) for page in pages] == [1000, 3]
    listed = [item for page in pages for item in page]
    assert listed == [ListedObject(f"{number:05}.jpg", ETAG, len(BODY)) for number in range(1003)]


def test_a_listing_returns_only_its_prefix(store: ObjectStore, bucket: S3Uri) -> None:
    for key in ("new/1.jpg", "new-old/1.jpg", "newer.jpg"):
        store.write(bucket / key, BODY)
    assert [item.key for page in store.list_pages((bucket / "new").as_folder()) for item in page] == ["new/1.jpg"]


def test_an_empty_bucket_lists_nothing(store: ObjectStore, bucket: S3Uri) -> None:
    assert [item for page in store.list_pages(bucket) for item in page] == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_written_listed_and_read(store: ObjectStore, bucket: S3Uri, key: str, tmp_path: Path) -> None:
    location = S3Uri(bucket.bucket, key)
    store.write(location, BODY)
    assert [page for page in store.list_pages(bucket) if page] == [[ListedObject(key, ETAG, len(BODY))]]
    assert store.read_unchanged(location, ETAG, len(BODY)) == BODY
    assert store.read(location) == BODY
    assert store.read_if_present(location) == BODY
    store.download(location, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BODY


def test_a_deleted_object_is_missing(store: ObjectStore, bucket: S3Uri) -> None:
    assert store.read_unchanged(bucket / "gone.jpg", ETAG, 100) is ReadReason.MISSING


def test_an_object_with_another_etag_is_replaced(store: ObjectStore, bucket: S3Uri) -> None:
    store.write(bucket / "1.jpg", BODY[::-1])
    assert store.read_unchanged(bucket / "1.jpg", ETAG, 100) is ReadReason.REPLACED


@pytest.mark.usefixtures("s3_server")
def test_a_replaced_object_is_detected_without_if_match() -> None:
    with serve_response(200, BODY) as url:
        store = ObjectStore(url)
        assert store.read_unchanged(S3Uri("images", "1.jpg"), ETAG, 100) == BODY
        assert store.read_unchanged(S3Uri("images", "1.jpg"), "other", 100) is ReadReason.REPLACED


def test_an_object_over_the_limit_is_too_large(store: ObjectStore, bucket: S3Uri) -> None:
    store.write(bucket / "1.jpg", BODY)
    assert store.read_unchanged(bucket / "1.jpg", ETAG, len(BODY) - 1) is ReadReason.TOO_LARGE


@pytest.mark.usefixtures("s3_server")
def test_a_forbidden_object_fails_alone() -> None:
    with serve_response(403, make_error("AccessDenied")) as url:
        assert ObjectStore(url).read_unchanged(S3Uri("images", "1.jpg"), ETAG, 9) is ReadReason.ACCESS_DENIED


def test_only_read_if_present_accepts_a_missing_object(store: ObjectStore, bucket: S3Uri, tmp_path: Path) -> None:
    assert store.read_if_present(bucket / "products.csv") is None
    with pytest.raises(PermanentError, match=r"NoSuchKey.*products\.csv"):
        store.read(bucket / "products.csv")
    with pytest.raises(PermanentError, match=r"products\.csv"):
        store.download(bucket / "products.csv", tmp_path / "copy")


def test_a_large_file_is_uploaded_and_downloaded_in_parts(store: ObjectStore, bucket: S3Uri, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.write_bytes(os.urandom(20_000_000))
    store.upload(original, bucket / "weights")
    store.download(bucket / "weights", copy)
    assert copy.read_bytes() == original.read_bytes()


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_unreachable_endpoint_is_retryable(
    act: Callable[[ObjectStore, S3Uri, Path], object], image_file: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RetryableError, match=f"cannot reach the bucket at {url}") as caught:
            act(ObjectStore(url), S3Uri("images", "1.jpg"), image_file)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("act", ["read_unchanged", "read", "download"])
def test_a_truncated_response_is_retryable(act: str, tmp_path: Path) -> None:
    with serve_response(200, BODY, promised_bytes=99) as url, pytest.raises(RetryableError, match="cannot reach"):
        ACTS[act](ObjectStore(url), S3Uri("images", "1.jpg"), tmp_path / "copy")


@pytest.mark.usefixtures("s3_server")
def test_throttling_is_retryable() -> None:
    message = "returned SlowDown for s3://images/1.jpg: slow down"
    with serve_response(503, make_error("SlowDown")) as url, pytest.raises(RetryableError, match=re.escape(message)):
        ObjectStore(url).read(S3Uri("images", "1.jpg"))


@pytest.mark.parametrize("changes", [{"AWS_ACCESS_KEY_ID": "X" * 20}, {"AWS_SECRET_ACCESS_KEY": "x" * 40}], ids=repr)
def test_wrong_credentials_are_permanent(
    s3_server: S3Server, bucket: S3Uri, changes: dict[str, str], image_file: Path
) -> None:
    with change_environment(changes):
        stranger = ObjectStore(s3_server.url)
        for act in ACTS.values():
            with pytest.raises(PermanentError, match="credentials"):
                act(stranger, bucket / "1.jpg", image_file)


@pytest.mark.parametrize("missing", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY",)])
def test_the_error_names_missing_credentials(s3_server: S3Server, bucket: S3Uri, missing: tuple[str, ...]) -> None:
    elsewhere = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
    with change_environment({"AWS_EC2_METADATA_DISABLED": "true"} | dict.fromkeys(elsewhere, os.devnull)):
        for name in missing:
            del os.environ[name]
        with pytest.raises(PermanentError, match="AWS_SECRET_ACCESS_KEY"):
            ObjectStore(s3_server.url).read(bucket / "1.jpg")


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_the_error_names_a_missing_bucket(
    store: ObjectStore, act: Callable[[ObjectStore, S3Uri, Path], object], image_file: Path
) -> None:
    with pytest.raises(PermanentError, match="s3://no-such-bucket/"):
        act(store, S3Uri("no-such-bucket", "1.jpg"), image_file)


def test_an_invalid_bucket_name_is_refused_in_one_line(store: ObjectStore) -> None:
    with pytest.raises(PermanentError, match="Bad Bucket") as caught:
        store.read(S3Uri("Bad Bucket", "1.jpg"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "nonsense", "http://"])
def test_the_error_of_a_wrong_url_names_its_setting(url: str) -> None:
    with pytest.raises(PermanentError, match="CATALOG_S3_ENDPOINT_URL"):
        ObjectStore(url)


def test_missing_buckets_are_created_once(s3_server: S3Server) -> None:
    old, new = f"old-{uuid4().hex}", f"new-{uuid4().hex}"
    locations = [S3Uri(old, "some/prefix"), S3Uri(new, "")]
    assert create_missing_buckets(s3_server.url, locations[:1]) == [old]
    assert create_missing_buckets(s3_server.url, locations) == [new]
    assert (s3_server.buckets / new).is_dir()
    assert create_missing_buckets(s3_server.url, locations) == []


def test_a_bucket_of_two_locations_is_created_once(s3_server: S3Server) -> None:
    name = f"both-{uuid4().hex}"
    assert create_missing_buckets(s3_server.url, [S3Uri(name, "a"), S3Uri(name, "b")]) == [name]


def test_a_forbidden_bucket_is_not_taken_for_missing(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # The default session of boto3 would keep the keys that it found.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "0" * 40)
    name = f"refused-{uuid4().hex}"
    with pytest.raises(ClientError, match="403"):
        create_missing_buckets(s3_server.url, [S3Uri(name, "")])
    assert not (s3_server.buckets / name).exists()


def test_no_bucket_is_created_on_aws() -> None:
    assert create_missing_buckets(None, [S3Uri("a", "")]) == []
