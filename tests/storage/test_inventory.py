"""Find and read S3 inventories."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from fixtures.inventories import Entry, Format, checksum_location, write_inventory, write_manifest
from fixtures.s3_server import S3Server
from jobs.errors import ConfigurationError, PermanentError, RefusedError
from jobs.storage.inventory import find_inventory, read_inventory
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("aws_keys")

FORMATS: tuple[Format, ...] = ("CSV", "Parquet")
ODD_KEYS = ["new/a b.jpg", "new/a+b.jpg", "new/50%41.jpg", 'new/",".jpg', "new/ünï-写真-👗.jpg", "new/line\nbreak.jpg"]


@pytest.fixture
def store(s3_server: S3Server) -> ObjectStore:
    return ObjectStore(s3_server.url)


@pytest.fixture
def folder(store: ObjectStore) -> S3Uri:
    bucket = f"inventories-{uuid4().hex[:12]}"
    store._client.create_bucket(Bucket=bucket)
    return S3Uri(bucket, "inventories/shop/daily/")


def read(store: ObjectStore, folder: S3Uri, prefix: str = "new/") -> list[tuple[str, str, int]]:
    pages = read_inventory(store, find_inventory(store, folder, "shop"), prefix)
    return [(item.key, item.etag, item.size_bytes) for page in pages for item in page]


@pytest.mark.parametrize("file_format", FORMATS)
def test_all_files_are_read_and_only_keys_below_the_prefix(
    store: ObjectStore, folder: S3Uri, file_format: Format
) -> None:
    parts = [[Entry(key, "abc", 2**40) for key in ODD_KEYS], [], [Entry("new/z.jpg"), Entry("old/a.jpg")]]
    write_inventory(store, folder, "shop", parts, file_format)
    assert read(store, folder) == [*((key, "abc", 2**40) for key in ODD_KEYS), ("new/z.jpg", "0" * 32, 1)]


@pytest.mark.parametrize("file_format", FORMATS)
def test_only_current_versions_count(store: ObjectStore, folder: S3Uri, file_format: Format) -> None:
    entries = [
        Entry("new/a.jpg", "new"),
        Entry("new/a.jpg", "old", is_latest=False),
        Entry("new/b.jpg", None, None, is_delete_marker=True),
        Entry("new/b.jpg", "old", is_latest=False),
    ]
    write_inventory(store, folder, "shop", [entries], file_format)
    assert read(store, folder) == [("new/a.jpg", "new", 1)]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("parts", [[], [[]]])
def test_an_inventory_may_be_empty(
    store: ObjectStore, folder: S3Uri, file_format: Format, parts: list[list[Entry]]
) -> None:
    write_inventory(store, folder, "shop", parts, file_format)
    assert read(store, folder) == []


def test_the_latest_complete_inventory_counts(store: ObjectStore, folder: S3Uri) -> None:
    now = datetime.now(UTC)
    for days, key in ((2, "new/older.jpg"), (1, "new/newer.jpg"), (0, "new/unfinished.jpg")):
        manifest = write_inventory(store, folder, "shop", [[Entry(key)]], created_at=now - timedelta(days=days))
    store._client.delete_object(Bucket=folder.bucket, Key=checksum_location(manifest).key)
    assert read(store, folder) == [("new/newer.jpg", "0" * 32, 1)]
    inventory = find_inventory(store, folder, "shop")
    assert abs(inventory.created_at - (now - timedelta(days=1))) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("inventory of the bucket other, not of shop", {"sourceBucket": "other"}),
        ("has the format ORC. Set the format of the inventory to Parquet or CSV", {"fileFormat": "ORC"}),
        (r"lacks etag, size\.", {"fileSchema": "message m { optional binary bucket (UTF8); optional binary key; }"}),
    ],
)
def test_an_inventory_that_cannot_be_used_is_refused(
    store: ObjectStore, folder: S3Uri, message: str, changes: dict[str, Any]
) -> None:
    write_inventory(store, folder, "shop", [[Entry("new/a.jpg")]], **changes)
    with pytest.raises(ConfigurationError, match=message):
        read(store, folder)


def test_an_old_inventory_is_refused(store: ObjectStore, folder: S3Uri) -> None:
    write_inventory(store, folder, "shop", [], created_at=datetime.now(UTC) - timedelta(hours=73, minutes=1))
    with pytest.raises(RefusedError, match="is 73 hours old, more than 72"):
        read(store, folder)


def test_a_manifest_of_another_kind_is_refused(store: ObjectStore, folder: S3Uri) -> None:
    write_manifest(store, folder, datetime.now(UTC), {"sourceBucket": "shop"})
    with pytest.raises(PermanentError, match="is not the manifest of an inventory: creationTimestamp: Field required"):
        read(store, folder)


def test_a_folder_without_an_inventory_is_refused(store: ObjectStore, folder: S3Uri) -> None:
    with pytest.raises(ConfigurationError, match="no complete inventory"):
        read(store, folder)


def test_a_folder_with_several_inventories_is_refused(store: ObjectStore, folder: S3Uri) -> None:
    for name in ("daily/", "weekly/"):
        write_inventory(store, S3Uri(folder.bucket, folder.key + name), "shop", [])
    with pytest.raises(ConfigurationError, match=r"several inventories: .*daily/, .*weekly/"):
        read(store, folder)


@pytest.mark.parametrize("part", ["manifest", "data"])
def test_damaged_files_are_refused(store: ObjectStore, folder: S3Uri, part: str) -> None:
    manifest = write_inventory(store, folder, "shop", [[Entry("new/a.jpg")]])
    location = manifest
    if part == "data":
        location = S3Uri(folder.bucket, find_inventory(store, folder, "shop").files[0].key)
    store.write(location, store.read(location) + b" ")
    with pytest.raises(PermanentError, match="is damaged: its MD5 is"):
        read(store, folder)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(
    ("entry", "bucket_column", "message"),
    [
        (Entry("new/a.jpg"), "other", "it lists objects of buckets other than shop"),
        (Entry("new/a.jpg", etag=None), "shop", "an object has no key, size or etag"),
        (Entry("new/a.jpg", size=None), "shop", "an object has no key, size or etag"),
    ],
)
def test_files_with_wrong_rows_are_refused(
    store: ObjectStore, folder: S3Uri, file_format: Format, entry: Entry, bucket_column: str, message: str
) -> None:
    write_inventory(store, folder, bucket_column, [[entry]], file_format, sourceBucket="shop")
    with pytest.raises(PermanentError, match=f"cannot be read as an inventory: .*{message}"):
        read(store, folder)


def test_csv_rows_must_match_the_schema(store: ObjectStore, folder: S3Uri) -> None:
    write_inventory(store, folder, "shop", [[Entry("new/a.jpg")]], "CSV", fileSchema="Bucket, Key, Size, ETag")
    with pytest.raises(PermanentError, match="cannot be read as an inventory"):
        read(store, folder)


def test_a_missing_file_is_refused(store: ObjectStore, folder: S3Uri) -> None:
    write_inventory(store, folder, "shop", [], files=[{"key": "gone", "size": 1, "MD5checksum": "0"}])
    with pytest.raises(ConfigurationError, match="gone"):
        read(store, folder)
