"""Read an S3 Inventory: the objects of a bucket, which S3 writes to files every day. It replaces a listing.

<configuration>/<time>/manifest.json      the files of an inventory, with their checksums
<configuration>/<time>/manifest.checksum  the MD5 of the manifest, written last
"""

import gzip
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from jobs.errors import ConfigurationError, PermanentError, RefusedError, first_line
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ListedObject, ObjectStore

MAX_AGE = timedelta(hours=72)
"""S3 delivers the first inventory within 48 hours, and then one every day."""
BATCH_ROWS = 10_000
CSV_BLOCK_BYTES = 2**20
_MANIFEST = re.compile(r"(?P<folder>(?P<configuration>.*)\d{4}-\d\d-\d\dT\d\d-\d\dZ/)manifest\.(json|checksum)")
_TYPES = {
    "bucket": pa.string(),
    "key": pa.string(),
    "size": pa.int64(),
    "etag": pa.string(),
    "islatest": pa.bool_(),
    "isdeletemarker": pa.bool_(),
}
"""The columns that are read. The last two exist only if the inventory lists all versions."""
_REQUIRED = {"bucket", "key", "size", "etag"}


class _ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class _File(_ManifestPart):
    key: str
    md5: str = Field(alias="MD5checksum")


class _Manifest(_ManifestPart):
    source_bucket: str
    created_at: datetime = Field(alias="creationTimestamp")
    file_format: str
    file_schema: str
    files: tuple[_File, ...]


@dataclass(frozen=True)
class Inventory:
    """A complete inventory. Objects that changed after ``created_at`` may be missing or outdated."""

    manifest: S3Uri
    bucket: str
    created_at: datetime
    is_csv: bool
    columns: tuple[str, ...]
    files: tuple[_File, ...]


def find_inventory(store: ObjectStore, folder: S3Uri, bucket: str) -> Inventory:
    """Return the latest complete inventory of a bucket below a folder.

    Raises:
        ConfigurationError: there is none, it is that of another bucket, or its format or columns cannot be used.
        RefusedError: it is too old.
        PermanentError: its manifest is damaged.
    """
    location = _find_manifest(store, folder)
    manifest = _read_manifest(store, location)
    if manifest.source_bucket != bucket:
        raise ConfigurationError(
            f"{location} is an inventory of the bucket {manifest.source_bucket}, not of {bucket}. "
            "To list the bucket instead, set CATALOG_INVENTORY_URI to nothing"
        )
    if manifest.file_format not in {"CSV", "Parquet"}:
        raise ConfigurationError(
            f"{location} has the format {manifest.file_format}. Set the format of the inventory to Parquet or CSV"
        )
    age = datetime.now(UTC) - manifest.created_at
    if age > MAX_AGE:
        raise RefusedError(
            f"the latest complete inventory, {location}, is {age // timedelta(hours=1)} hours old, more than "
            f"{MAX_AGE // timedelta(hours=1)}. Check that S3 still writes it every day, or list the bucket: set "
            "CATALOG_INVENTORY_URI to nothing"
        )
    columns = _read_columns(manifest)
    missing = sorted(_REQUIRED - set(columns))
    if missing:
        raise ConfigurationError(f"{location} lacks {', '.join(missing)}. Add them to the fields of the inventory")
    is_csv = manifest.file_format == "CSV"
    return Inventory(location, bucket, manifest.created_at, is_csv, columns, manifest.files)


def _find_manifest(store: ObjectStore, folder: S3Uri) -> S3Uri:
    found = [_MANIFEST.fullmatch(item.key) for page in store.list_pages(folder) for item in page]
    matches = [match for match in found if match]
    configurations = sorted({match["configuration"] for match in matches})
    if len(configurations) > 1:
        names = ", ".join(str(S3Uri(folder.bucket, key)) for key in configurations[:5])
        raise ConfigurationError(f"there are several inventories: {names}. Set CATALOG_INVENTORY_URI to one of them")
    manifests = {match["folder"] for match in matches if match[3] == "json"}
    complete = manifests & {match["folder"] for match in matches if match[3] == "checksum"}
    if not complete:
        raise ConfigurationError(
            f"there is no complete inventory in {folder}. S3 writes the first one within 48 hours. Until then, list "
            "the bucket: set CATALOG_INVENTORY_URI to nothing"
        )
    return S3Uri(folder.bucket, f"{max(complete)}manifest.json")


def _read_manifest(store: ObjectStore, location: S3Uri) -> _Manifest:
    content = store.read(location)
    checksum = store.read(S3Uri(location.bucket, location.key.replace("manifest.json", "manifest.checksum")))
    _check_md5(hashlib.md5(content, usedforsecurity=False).hexdigest(), checksum.decode(errors="replace"), location)
    try:
        return _Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "JSON"
        raise PermanentError(f"{location} is not the manifest of an inventory: {field}: {first['msg']}") from None


def _read_columns(manifest: _Manifest) -> tuple[str, ...]:
    """Return the names of the columns in lower case and without underscores, because the formats spell them otherwise.

    The schema of CSV is ``Bucket, Key, ETag``, that of Parquet ``message m { required binary bucket (UTF8); ... }``.
    """
    if manifest.file_format == "CSV":
        names = manifest.file_schema.split(",")
    else:
        names = re.findall(r"(\w+)\s*(?:\([^;]*\))?\s*;", manifest.file_schema)
    return tuple(_normalize(name) for name in names)


def _normalize(column: str) -> str:
    return column.strip().replace("_", "").lower()


def read_inventory(store: ObjectStore, inventory: Inventory, prefix: str) -> Iterator[list[ListedObject]]:
    """Yield the current objects under a prefix in pages, in no particular order.

    One file at a time is downloaded, checked and read.

    Raises:
        PermanentError: a file differs from its checksum, or cannot be read.
        ConfigurationError: a file is missing.
    """
    with open_scratch() as scratch:
        path = scratch / "inventory"
        for file in inventory.files:
            location = S3Uri(inventory.manifest.bucket, file.key)
            store.download(location, path)
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            _check_md5(digest, file.md5, location)
            try:
                yield from _read_file(path, inventory, prefix)
            except (pa.ArrowException, ValueError) as error:
                raise PermanentError(f"{location} cannot be read as an inventory: {first_line(error)}") from None


def _check_md5(actual: str, expected: str, location: S3Uri) -> None:
    if actual != expected.strip().lower():
        raise PermanentError(f"{location} is damaged: its MD5 is {actual} instead of {expected.strip()}")


def _read_file(path: Path, inventory: Inventory, prefix: str) -> Iterator[list[ListedObject]]:
    for batch in _read_csv(path, inventory.columns) if inventory.is_csv else _read_parquet(path):
        columns: dict[str, list[Any]] = {_normalize(name): batch[name].to_pylist() for name in batch.schema.names}
        if missing := sorted(_REQUIRED - columns.keys()):
            raise ValueError(f"it has no column {', '.join(missing)}")
        if set(columns["bucket"]) - {inventory.bucket}:
            raise ValueError(f"it lists objects of buckets other than {inventory.bucket}")
        rows = zip(
            columns["key"],
            columns["etag"],
            columns["size"],
            columns.get("islatest", repeat(True)),
            columns.get("isdeletemarker", repeat(False)),
            strict=False,
        )
        current = [row[:3] for row in rows if row[3] and not row[4]]
        if any(key is None or not etag or size is None for key, etag, size in current):
            raise ValueError("an object has no key, size or etag")
        if inventory.is_csv:
            current = [(_decode(key), etag, size) for key, etag, size in current]
        yield [
            ListedObject.from_response({"Key": key, "ETag": etag, "Size": size})
            for key, etag, size in current
            if key.startswith(prefix)
        ]


def _decode(key: str) -> str:
    # S3 encodes a space as a plus, and a plus as %2B.
    return unquote_plus(key, errors="strict") if "%" in key or "+" in key else key


def _read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    with gzip.open(path) as content:
        if not content.peek(1):
            return
        reader = pacsv.open_csv(
            content,  # type: ignore[arg-type]
            read_options=pacsv.ReadOptions(column_names=list(columns), block_size=CSV_BLOCK_BYTES),
            convert_options=pacsv.ConvertOptions(
                include_columns=[name for name in columns if name in _TYPES], column_types=_TYPES
            ),
        )
        with closing(reader):
            yield from reader


def _read_parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        wanted = [name for name in file.schema_arrow.names if _normalize(name) in _TYPES]
        yield from file.iter_batches(BATCH_ROWS, columns=wanted)
