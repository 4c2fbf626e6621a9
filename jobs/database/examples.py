"""Queries on ``examples``: the labelled photos that models learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


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
