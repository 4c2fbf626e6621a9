"""Write and read snapshots as Parquet files. A snapshot is named by the hash of the hashes of its rows.

If an image is erased, only the hash of its row stays, so the name still proves that the other rows are unchanged.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import PermanentError
from jobs.storage.locations import S3Uri, snapshot_location
from jobs.storage.object_store import ObjectStore

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
COLUMNS: "list[pa.Field[Any]]" = [
    pa.field(name, pa.string(), nullable=False)
    for name in ("content_hash", "perceptual_hash", "category", "full_text", "group_name", "split")
]
SCHEMA = pa.schema(COLUMNS)
ERASED_KEY = b"erased_rows"
"""The key of the hashes of erased rows in the metadata of the file."""


@dataclass(frozen=True, order=True)
class SnapshotRow:
    """An image of a snapshot.

    ``content_hash`` (sha256) and ``perceptual_hash`` (256 bits) are hexadecimal. ``full_text`` consists of title and
    description, and is empty if the label has neither.
    """

    content_hash: str
    perceptual_hash: str
    category: str
    full_text: str
    group_name: str
    split: Split


@dataclass(frozen=True)
class Snapshot:
    """A labeled data set. ``rows`` are sorted by content hash. ``erased`` are the hashes of rows that were erased."""

    snapshot_id: str
    rows: tuple[SnapshotRow, ...]
    erased: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """Return all categories, in the order of a classifier's outputs."""
        return tuple(sorted({row.category for row in self.rows}))

    def part(self, split: Split) -> tuple[SnapshotRow, ...]:
        """Return the rows of one split."""
        return tuple(row for row in self.rows if row.split == split)


def make_snapshot(rows: Sequence[SnapshotRow], erased: Sequence[str] = ()) -> Snapshot:
    """Sort the rows and name the snapshot by the hashes of all its rows. The order of ``rows`` does not matter."""
    digests = sorted([*map(_hash_row, rows), *erased])
    return Snapshot(hashlib.sha256("\n".join(digests).encode()).hexdigest(), tuple(sorted(rows)), tuple(erased))


def _hash_row(row: SnapshotRow) -> str:
    return hashlib.sha256(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def erase_rows(snapshot: Snapshot, is_erased: Callable[[SnapshotRow], bool]) -> Snapshot:
    """Return the snapshot, under the same name, with only the hashes of the erased rows."""
    erased = [_hash_row(row) for row in snapshot.rows if is_erased(row)]
    return make_snapshot([row for row in snapshot.rows if not is_erased(row)], [*snapshot.erased, *erased])


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode a snapshot as Parquet."""
    columns = {name: [getattr(row, name) for row in snapshot.rows] for name in SCHEMA.names}
    schema = SCHEMA.with_metadata({ERASED_KEY: json.dumps(snapshot.erased)})
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def load_snapshot(store: ObjectStore, artifacts: S3Uri, snapshot_id: str) -> Snapshot:
    """Read a snapshot from the artifacts.

    Raises:
        PermanentError: the snapshot is missing or damaged, or its rows do not match its name.
    """
    location = snapshot_location(artifacts, snapshot_id)
    try:
        table = pq.read_table(io.BytesIO(store.read(location)))
    except pa.ArrowInvalid as error:
        raise PermanentError(f"{location} is not a Parquet file ({error}). Take a new snapshot") from None
    erased = json.loads((table.schema.metadata or {}).get(ERASED_KEY, b"[]"))
    snapshot = make_snapshot([SnapshotRow(**row) for row in table.to_pylist()], erased)
    if snapshot.snapshot_id != snapshot_id:
        raise PermanentError(
            f"{location} was modified: the hash of its rows differs from its name. Take a new snapshot"
        )
    return snapshot
