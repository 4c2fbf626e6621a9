"""Queries on ``labels``, ``examples``, ``dataset_snapshots`` and ``split_memory``: the training data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.records import read_record, read_records, text_with_json
from jobs.errors import NotFoundError

CATALOG_SOURCE = "catalog"
"""The ``source`` of examples that are images of the catalog."""

NOT_CLOTHING = "not clothing"
"""The label of images that show no product. It is not a category, and no model learns it. The views also use it."""


@dataclass(frozen=True)
class DueLabel:
    """An image whose latest label is not in the examples yet, with the texts of its product."""

    bucket: str
    object_key: str
    etag: str
    size_bytes: int
    product_id: str
    title: str
    description: str
    category: str


def stream_due_labels(connection: Connection) -> Iterator[DueLabel]:
    """Yield the labeled images whose example is missing or outdated. Their source key is ``bucket/object key``.

    Leave out images that are no longer in the bucket, that no run has read yet, or that are not clothing.
    """
    statement = text("""
        SELECT i.bucket, i.object_key, i.etag, i.size_bytes, i.product_id, l.category,
               coalesce(p.display_name, '') AS title, coalesce(p.description, '') AS description
        FROM (SELECT DISTINCT ON (image_id) image_id, category FROM catalog.labels ORDER BY image_id, label_id DESC) l
        JOIN catalog.images i USING (image_id)
        JOIN catalog.products p USING (product_id)
        LEFT JOIN catalog.examples e ON e.source = :source AND e.source_key = i.bucket || '/' || i.object_key
        WHERE i.deleted_at IS NULL AND i.content_hash IS NOT NULL AND l.category <> :not_clothing
          AND (e.content_hash, e.category, e.title, e.description, e.group_name) IS DISTINCT FROM
              (i.content_hash, l.category, coalesce(p.display_name, ''), coalesce(p.description, ''), i.product_id)
        ORDER BY i.bucket, i.object_key
    """)
    parameters = {"source": CATALOG_SOURCE, "not_clothing": NOT_CLOTHING}
    return read_records(connection.execute(statement, parameters, execution_options={"yield_per": 1000}), DueLabel)


def prune_unlabeled_examples(connection: Connection) -> int:
    """Delete catalog examples whose image has lost its label or is not clothing. Return how many were deleted."""
    statement = text("""
        DELETE FROM catalog.examples e
        WHERE source = :source AND NOT EXISTS (
            SELECT FROM catalog.images i
            WHERE i.bucket || '/' || i.object_key = e.source_key AND :not_clothing <> (
                SELECT category FROM catalog.labels l WHERE l.image_id = i.image_id ORDER BY label_id DESC LIMIT 1
            )
        )
    """)
    return connection.execute(statement, {"source": CATALOG_SOURCE, "not_clothing": NOT_CLOTHING}).rowcount


@dataclass(frozen=True)
class Example:
    """A labeled image. Its bytes are stored in the artifacts under ``content_hash``, their sha256.

    ``source`` and ``source_key`` say where the label comes from. ``perceptual_hash`` has 32 bytes. Images with the same
    ``group_name`` are never split between training and test.
    """

    source: str
    source_key: str
    content_hash: bytes
    perceptual_hash: bytes
    category: str
    title: str
    description: str
    group_name: str


def upsert_examples(connection: Connection, import_id: str, examples: Sequence[Example]) -> None:
    """Store examples. An example replaces the one with the same source and key."""
    connection.execute(
        text("""
            INSERT INTO catalog.examples AS e (source, source_key, content_hash, perceptual_hash, category, title,
                                               description, group_name, import_id)
            SELECT DISTINCT ON (source, source_key) source, source_key, content_hash, perceptual_hash, category, title,
                   description, group_name, :import_id
            FROM unnest(CAST(:sources AS text[]), CAST(:keys AS text[]), CAST(:contents AS bytea[]),
                        CAST(:perceptual AS bytea[]), CAST(:categories AS text[]), CAST(:titles AS text[]),
                        CAST(:descriptions AS text[]), CAST(:groups AS text[])) WITH ORDINALITY
                     AS s (source, source_key, content_hash, perceptual_hash, category, title, description, group_name,
                           position)
            ORDER BY source, source_key, position DESC
            ON CONFLICT (source, source_key) DO UPDATE
            SET content_hash = excluded.content_hash, perceptual_hash = excluded.perceptual_hash,
                category = excluded.category, title = excluded.title, description = excluded.description,
                group_name = excluded.group_name, import_id = excluded.import_id, imported_at = now()
        """),
        {
            "import_id": import_id,
            "sources": [example.source for example in examples],
            "keys": [example.source_key for example in examples],
            "contents": [example.content_hash for example in examples],
            "perceptual": [example.perceptual_hash for example in examples],
            "categories": [example.category for example in examples],
            "titles": [example.title for example in examples],
            "descriptions": [example.description for example in examples],
            "groups": [example.group_name for example in examples],
        },
    )


def find_perceptual_hashes(connection: Connection, content_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the stored perceptual hashes of these contents, by content hash."""
    statement = text("""
        SELECT DISTINCT ON (content_hash) content_hash, perceptual_hash
        FROM catalog.examples WHERE content_hash = ANY(CAST(:contents AS bytea[])) ORDER BY content_hash, example_id
    """)
    rows = connection.execute(statement, {"contents": list(content_hashes)})
    return {row.content_hash: row.perceptual_hash for row in rows}


def prune_examples(connection: Connection, source: str, import_id: str) -> int:
    """Delete the examples of a source that its latest import did not contain. Return how many were deleted."""
    statement = text("DELETE FROM catalog.examples WHERE source = :source AND import_id <> :import_id")
    return connection.execute(statement, {"source": source, "import_id": import_id}).rowcount


def stream_examples(connection: Connection) -> Iterator[Example]:
    """Yield all examples, in an order that depends only on their content."""
    statement = text("""
        SELECT source, source_key, content_hash, perceptual_hash, category, title, description, group_name
        FROM catalog.examples ORDER BY content_hash, source COLLATE "C", source_key COLLATE "C"
    """)
    return read_records(connection.execute(statement, execution_options={"yield_per": 1000}), Example)


RememberedSplit = Literal["train", "test"]


@dataclass(frozen=True)
class RegisteredSnapshot:
    """A labeled data set that is stored in the artifacts."""

    snapshot_id: str
    artifact_uri: str
    report: dict[str, Any]
    created_at: datetime


def insert_snapshot(connection: Connection, snapshot_id: str, artifact_uri: str, report: Mapping[str, Any]) -> None:
    """Register a snapshot. Equal rows make the same snapshot, which keeps its creation time."""
    statement = """
        INSERT INTO catalog.dataset_snapshots (snapshot_id, artifact_uri, report) VALUES (:id, :uri, :report)
        ON CONFLICT (snapshot_id) DO UPDATE SET report = excluded.report
    """
    parameters = {"id": snapshot_id, "uri": artifact_uri, "report": report}
    connection.execute(text_with_json(statement, "report"), parameters)


def read_snapshot(connection: Connection, snapshot_id: str) -> RegisteredSnapshot | None:
    """Return a registered snapshot, or None."""
    statement = text("SELECT * FROM catalog.dataset_snapshots WHERE snapshot_id = :id")
    return read_record(connection.execute(statement, {"id": snapshot_id}), RegisteredSnapshot)


def require_snapshot(connection: Connection, snapshot_id: str) -> None:
    """Check that a snapshot exists.

    Raises:
        NotFoundError: it does not.
    """
    if read_snapshot(connection, snapshot_id) is None:
        latest = text("SELECT snapshot_id FROM catalog.dataset_snapshots ORDER BY created_at DESC LIMIT 100")
        names = name_alternatives(snapshot_id, connection.execute(latest).scalars(), "Take one with `catalog snapshot`")
        raise NotFoundError(f"there is no snapshot {snapshot_id!r}. {names}")


def lock_split_memory(connection: Connection) -> None:
    """Block other snapshots until the transaction ends, so no two put an image into different splits."""
    connection.execute(text("LOCK TABLE catalog.split_memory IN SHARE ROW EXCLUSIVE MODE"))


def read_split_memory(connection: Connection) -> dict[bytes, RememberedSplit]:
    """Return the split of each content hash in earlier snapshots: test if it was ever in test, else train."""
    rows = connection.execute(text("SELECT content_hash, split FROM catalog.split_memory"))
    return {row.content_hash: row.split for row in rows}


def remember_splits(
    connection: Connection, snapshot_id: str, content_hashes: Sequence[bytes], split: RememberedSplit
) -> None:
    """Store which images a snapshot has in a split. An image in test stays in test."""
    connection.execute(
        text("""
            INSERT INTO catalog.split_memory AS m (content_hash, split, first_snapshot_id)
            SELECT h, :split, :snapshot FROM unnest(CAST(:hashes AS bytea[])) AS h
            ON CONFLICT (content_hash) DO UPDATE SET split = 'test' WHERE excluded.split = 'test' AND m.split <> 'test'
        """),
        {"split": split, "snapshot": snapshot_id, "hashes": list(content_hashes)},
    )
