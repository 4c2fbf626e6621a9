"""Labels, labelled examples and the snapshots taken from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

CATALOG_SOURCE = "catalog"
"""The source of the examples that are the catalog's own images."""

NOT_CLOTHING = "not clothing"
"""The label of a photo that shows no product. It is no category: nothing learns it. The views know the word too."""


@dataclass(frozen=True)
class DueLabel:
    """An image whose latest label no example says yet, as the bucket listed it and with its product's texts."""

    bucket: str
    object_key: str
    etag: str
    size_bytes: int
    product_id: str
    title: str
    description: str
    category: str


def stream_due_labels(connection: Connection) -> Iterator[DueLabel]:
    """Yield the labelled images that no example says as they are; its key is their bucket and key, joined by a slash.

    Images that are gone from the bucket, or whose bytes no run has read yet, are left out, and so is what is not
    clothing.
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
    for row in connection.execute(statement, parameters, execution_options={"yield_per": 1000}):
        yield DueLabel(**row._mapping)


def prune_unlabelled_examples(connection: Connection) -> int:
    """Delete the examples of the catalog whose image has no label any more, or is not clothing; returns how many."""
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
    """A labelled photo; its bytes lie in the artifacts under ``content_hash``, their sha256.

    ``source`` and ``source_key`` name where the label comes from, ``perceptual_hash`` has 32 bytes, and photos of one
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
    """Store examples; one that its source already had under the same key takes over what is said now."""
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
    """The perceptual hashes of those contents that some example already has, by content hash."""
    statement = text("""
        SELECT DISTINCT ON (content_hash) content_hash, perceptual_hash
        FROM catalog.examples WHERE content_hash = ANY(CAST(:contents AS bytea[])) ORDER BY content_hash, example_id
    """)
    rows = connection.execute(statement, {"contents": list(content_hashes)})
    return {bytes(row.content_hash): bytes(row.perceptual_hash) for row in rows}


def prune_examples(connection: Connection, source: str, import_id: str) -> int:
    """Delete the examples of a source that its latest import no longer named; returns how many."""
    statement = text("DELETE FROM catalog.examples WHERE source = :source AND import_id <> :import_id")
    return connection.execute(statement, {"source": source, "import_id": import_id}).rowcount


def stream_examples(connection: Connection) -> Iterator[Example]:
    """Yield all examples, in an order that depends on nothing but what they say."""
    statement = text("""
        SELECT source, source_key, content_hash, perceptual_hash, category, title, description, group_name
        FROM catalog.examples ORDER BY content_hash, source COLLATE "C", source_key COLLATE "C"
    """)
    for row in connection.execute(statement, execution_options={"yield_per": 1000}):
        yield Example(
            row.source,
            row.source_key,
            bytes(row.content_hash),
            bytes(row.perceptual_hash),
            row.category,
            row.title,
            row.description,
            row.group_name,
        )


RememberedSplit = Literal["train", "test"]


@dataclass(frozen=True)
class RegisteredSnapshot:
    """A data set in the artifacts."""

    snapshot_id: str
    artifact_uri: str
    report: dict[str, Any]
    created_at: datetime


def insert_snapshot(connection: Connection, snapshot_id: str, artifact_uri: str, report: Mapping[str, Any]) -> None:
    """Register a snapshot; the same rows a second time are the same snapshot, as old as it was."""
    connection.execute(
        text("""
            INSERT INTO catalog.dataset_snapshots (snapshot_id, artifact_uri, report)
            VALUES (:id, :uri, :report)
            ON CONFLICT (snapshot_id) DO UPDATE SET report = excluded.report
        """),
        {"id": snapshot_id, "uri": artifact_uri, "report": json.dumps(report)},
    )


def read_snapshot(connection: Connection, snapshot_id: str) -> RegisteredSnapshot | None:
    """A registered snapshot, or None."""
    statement = text("SELECT * FROM catalog.dataset_snapshots WHERE snapshot_id = :id")
    row = connection.execute(statement, {"id": snapshot_id}).one_or_none()
    return RegisteredSnapshot(row.snapshot_id, row.artifact_uri, row.report, row.created_at) if row else None


def lock_split_memory(connection: Connection) -> None:
    """Make other snapshots wait until the transaction ends, so that no two put a photo on different sides."""
    connection.execute(text("LOCK TABLE catalog.split_memory IN SHARE ROW EXCLUSIVE MODE"))


def read_split_memory(connection: Connection) -> dict[bytes, RememberedSplit]:
    """By content hash: test for each photo that was ever tested on, train for all others of earlier snapshots."""
    rows = connection.execute(text("SELECT content_hash, split FROM catalog.split_memory"))
    return {bytes(row.content_hash): row.split for row in rows}


def remember_splits(
    connection: Connection, snapshot_id: str, content_hashes: Sequence[bytes], split: RememberedSplit
) -> None:
    """Remember photos that a snapshot has on this side; what is in test once is in test forever."""
    connection.execute(
        text("""
            INSERT INTO catalog.split_memory AS m (content_hash, split, first_snapshot_id)
            SELECT h, :split, :snapshot FROM unnest(CAST(:hashes AS bytea[])) AS h
            ON CONFLICT (content_hash) DO UPDATE SET split = 'test' WHERE excluded.split = 'test' AND m.split <> 'test'
        """),
        {"split": split, "snapshot": snapshot_id, "hashes": list(content_hashes)},
    )
