"""Write a snapshot of all products, or of those that changed since a cursor, to a file or an object."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jobs.connections import Connections
from jobs.database.changes import Cursor
from jobs.database.product_snapshot import ProductRow, open_snapshot
from jobs.errors import ConfigurationError
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri

ExportFormat = Literal["parquet", "csv", "jsonl"]
Write = Callable[[Sequence[ProductRow]], object]
ROW_GROUP = 20_000
"""Rows of a Parquet file that are in memory at once."""
CSV_COLUMNS = (
    "product_id",
    "is_deleted",
    "category",
    "confidence",
    "images",
    "images_disagree",
    "source",
    "classifier_version_id",
    "tagged_at",
)


@dataclass(frozen=True)
class ExportReport:
    """The numbers of rows in an export, and the cursor from which `catalog changes` or the next export continues."""

    to: str
    products: int
    deleted: int
    size_bytes: int
    cursor: str


def export_products(
    connections: Connections, file_format: ExportFormat, to: str, since: Cursor | None, *, with_vectors: bool
) -> ExportReport:
    """Write a snapshot. A file or object of this name appears, or is replaced, once the snapshot is complete.

    Raises:
        ConfigurationError: the location cannot be written, or the format has no vectors.
        RefusedError: the feed no longer has all changes since the cursor.
    """
    if with_vectors and file_format == "csv":
        raise ConfigurationError("CSV has no vectors: use parquet or jsonl")
    target = _read_target(to)
    # Next to the target, because only within a file system can a file replace another at once.
    with open_scratch(None if isinstance(target, S3Uri) else target.parent) as folder:
        path = folder / "export"
        products = deleted = 0
        with (
            open_snapshot(connections.engine, since, with_vectors=with_vectors) as snapshot,
            WRITERS[file_format](path, with_vectors) as write,
        ):
            for batch in snapshot.batches:
                write(batch)
                deleted += sum(row.is_deleted for row in batch)
                products += len(batch)
        report = ExportReport(to, products - deleted, deleted, path.stat().st_size, str(snapshot.cursor))
        if isinstance(target, S3Uri):
            connections.store.upload(path, target)
        else:
            path.replace(target)
    return report


def _read_target(to: str) -> S3Uri | Path:
    if "://" in to:
        try:
            target = S3Uri.parse(to)
        except ValueError as error:
            raise ConfigurationError(f"--to {error}") from None
        if not target.key or target.key.endswith("/"):
            raise ConfigurationError(f"--to {to} names no object: add a file name")
        return target
    path = Path(to).absolute()
    if (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise ConfigurationError(f"--to {to} must be a file in an existing folder")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ConfigurationError(f"--to {to} cannot be written: {error.strerror}. Choose another folder") from None
    return path


@contextmanager
def _open_parquet(path: Path, with_vectors: bool) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, pa.DataType] = {
        "product_id": pa.string(),
        "is_deleted": pa.bool_(),
        "category": pa.string(),
        "confidence": pa.float32(),
        "images": pa.int32(),
        "images_disagree": pa.bool_(),
        "source": pa.string(),
        "classifier_version_id": pa.int32(),
        "tagged_at": pa.timestamp("us", tz="UTC"),
    }
    if with_vectors:
        types["vector"] = pa.list_(pa.float32())
    schema = pa.schema(list(types.items()))
    group: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(rows: Sequence[ProductRow]) -> None:
            columns = [pa.array([getattr(row, name) for row in rows], kind) for name, kind in types.items()]
            group.append(pa.RecordBatch.from_arrays(columns, schema=schema))
            if sum(map(len, group)) >= ROW_GROUP:
                flush()

        def flush() -> None:
            # Each call makes a row group. Readers are slow if there are many small ones.
            writer.write_table(pa.Table.from_batches(group, schema))
            group.clear()

        yield write
        flush()


@contextmanager
def _open_csv(path: Path, _with_vectors: bool) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)

        def write(rows: Sequence[ProductRow]) -> None:
            writer.writerows([_to_text(getattr(row, name)) for name in CSV_COLUMNS] for row in rows)

        yield write


@contextmanager
def _open_jsonl(path: Path, with_vectors: bool) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(rows: Sequence[ProductRow]) -> None:
            for row in rows:
                document = asdict(row)
                if not with_vectors:
                    del document["vector"]
                file.write(f"{json.dumps(document, default=_to_text)}\n")

        yield write


def _to_text(value: Any) -> Any:
    """Return times in ISO 8601 and truth values in lower case, as databases read them."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value).lower() if isinstance(value, bool) else value


WRITERS: dict[ExportFormat, Callable[[Path, bool], AbstractContextManager[Write]]] = {
    "parquet": _open_parquet,
    "csv": _open_csv,
    "jsonl": _open_jsonl,
}
