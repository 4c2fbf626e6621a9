"""A snapshot on disk: an immutable labelled data set in Parquet, named by the hash of its rows."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import PermanentError
from jobs.storage.layout import snapshot_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

Split = Literal["train", "validation", "test"]
COLUMNS: "list[pa.Field[Any]]" = [
    pa.field(name, pa.string(), nullable=False)
    for name in ("content_hash", "perceptual_hash", "category", "full_text", "group_name", "split")
]
SCHEMA = pa.schema(COLUMNS)


@dataclass(frozen=True, order=True)
class SnapshotRow:
    """A photo of a snapshot.

    ``content_hash`` is the sha256 of its bytes and ``perceptual_hash`` its 256 bits, both in hexadecimal;
    ``full_text`` is title and description, and empty where the label's source has neither.
    """

    content_hash: str
    perceptual_hash: str
    category: str
    full_text: str
    group_name: str
    split: Split


@dataclass(frozen=True)
class Snapshot:
    """A labelled data set; ``rows`` are in the order of their content hashes."""

    snapshot_id: str
    rows: tuple[SnapshotRow, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in the order of a classifier's outputs."""
        return tuple(sorted({row.category for row in self.rows}))

    def part(self, split: Split) -> tuple[SnapshotRow, ...]:
        """The rows of one part."""
        return tuple(row for row in self.rows if row.split == split)


def make_snapshot(rows: Sequence[SnapshotRow]) -> Snapshot:
    """Name a data set by the sha256 of its rows: the same rows, in whatever order, give the same name."""
    ordered = tuple(sorted(rows))
    digest = hashlib.sha256()
    for row in ordered:
        digest.update(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return Snapshot(digest.hexdigest(), ordered)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Write a snapshot as Parquet."""
    columns = {name: [getattr(row, name) for row in snapshot.rows] for name in SCHEMA.names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def load_snapshot(store: ObjectStore, artifacts: S3Uri, snapshot_id: str) -> Snapshot:
    """Read a snapshot from the artifacts.

    Raises:
        PermanentError: there is none, or its rows are not those that it is named by.
    """
    location = snapshot_location(artifacts, snapshot_id)
    try:
        table = pq.read_table(io.BytesIO(store.read(location)))
    except pa.ArrowInvalid as error:
        raise PermanentError(f"{location} is no Parquet file ({error}); take a new snapshot") from None
    snapshot = make_snapshot([SnapshotRow(**row) for row in table.to_pylist()])
    if snapshot.snapshot_id != snapshot_id:
        raise PermanentError(f"{location} was altered: its rows are not those of its name; take a new snapshot")
    return snapshot
