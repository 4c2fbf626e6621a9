import hashlib
import os
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError

from fixtures.stack_access import connect_s3, find_listening_addresses, read_environment, read_pids

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BODY = b"bytes of an image"
BODY_ETAG = f'"{hashlib.md5(BODY).hexdigest()}"'
KEYS = (
    "plain.jpg",
    "with space.jpg",
    "quote'\".jpg",
    "unicode-ünï-写真.jpg",
    "percent%41+plus&amp;.jpg",
    "back\\slash?*:.jpg",
    "/".join(["k" * 204] * 5),
)


@pytest.fixture
def s3(storage_stack: Path) -> "Iterator[S3Client]":
    with connect_s3(storage_stack) as client:
        yield client


def list_keys(s3: "S3Client", prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="images", Prefix=prefix, PaginationConfig={"PageSize": 3}
    )
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_object_is_stored_under_its_key(s3: "S3Client", key: str) -> None:
    s3.put_object(Bucket="images", Key=key, Body=BODY)
    found = s3.get_object(Bucket="images", Key=key)

    assert (found["Body"].read(), found["ETag"]) == (BODY, BODY_ETAG)
    assert list_keys(s3, key) == [key]


def test_listing_pages_contain_all_keys_in_order(s3: "S3Client") -> None:
    keys = [f"pages/{number:02}.jpg" for number in range(10)]
    for key in keys:
        s3.put_object(Bucket="images", Key=key, Body=BODY)

    assert list_keys(s3, "pages/") == keys


def test_copy_and_delete(s3: "S3Client") -> None:
    s3.put_object(Bucket="images", Key="copy/ü 1.jpg", Body=BODY)
    s3.copy_object(Bucket="artifacts", Key="copy/2.jpg", CopySource={"Bucket": "images", "Key": "copy/ü 1.jpg"})
    s3.delete_object(Bucket="images", Key="copy/ü 1.jpg")

    assert s3.head_object(Bucket="artifacts", Key="copy/2.jpg")["ETag"] == BODY_ETAG
    assert list_keys(s3, "copy/") == []
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="images", Key="copy/ü 1.jpg")


def test_large_object_is_uploaded_in_parts(s3: "S3Client") -> None:
    body = os.urandom(20_000_000)
    s3.upload_fileobj(BytesIO(body), "artifacts", "large.bin")

    assert s3.head_object(Bucket="artifacts", Key="large.bin")["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'


def test_file_written_to_the_folder_appears_in_the_bucket(s3: "S3Client", storage_stack: Path) -> None:
    file = storage_stack / "buckets" / "images" / "dropped" / "image.jpg"
    file.parent.mkdir()
    for body in (BODY, BODY[::-1]):
        file.write_bytes(body)
        deadline = time.monotonic() + 120
        while (
            not (pages := s3.list_objects_v2(Bucket="images", Prefix="dropped/").get("Contents"))
            or pages[0]["ETag"].strip('"') != hashlib.md5(body).hexdigest()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        assert s3.get_object(Bucket="images", Key="dropped/image.jpg")["Body"].read() == body


def test_access_requires_the_secret(storage_stack: Path) -> None:
    with connect_s3(storage_stack, secret="x" * 40) as stranger, pytest.raises(ClientError, match="SignatureDoesNot"):
        stranger.list_objects_v2(Bucket="images")

    assert httpx.get(f"{read_environment(storage_stack)['CATALOG_S3_ENDPOINT_URL']}/images", trust_env=False).is_error


def test_listens_on_loopback_only_and_reveals_no_secret(storage_stack: Path) -> None:
    server = psutil.Process(read_pids(storage_stack)["s3"])

    assert find_listening_addresses([server]) == {"127.0.0.1"}
    assert read_environment(storage_stack)["AWS_SECRET_ACCESS_KEY"] not in " ".join(server.cmdline())


def test_idle_server_uses_little_processor_time(storage_stack: Path) -> None:
    server = psutil.Process(read_pids(storage_stack)["s3"])
    before = sum(server.cpu_times()[:2])
    time.sleep(2)

    assert sum(server.cpu_times()[:2]) - before < 0.5
