"""Write the tags, vectors and content hashes of a chunk, in the caller's transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, delete, table, text

from jobs.database.binary_copy import (
    EncodedColumn,
    copy_rows,
    encode_bigints,
    encode_halfvecs,
    encode_jsonb,
    encode_real_arrays,
    encode_reals,
    encode_texts,
)
from jobs.errors import RetryableError


@dataclass(frozen=True)
class StagingTable:
    """A temporary table to copy rows into before upserting them, because COPY has no ON CONFLICT.

    The table is kept as long as its connection. One table per transaction would fill the system catalogs with dead
    rows.
    """

    name: str
    columns: str


STAGED_TAGS = StagingTable(
    "staged_tags",
    "image_id bigint, category text, confidence real, top_3 jsonb, probabilities real[], content_hash bytea",
)
STAGED_EMBEDDINGS = StagingTable("staged_embeddings", "image_id bigint, content_hash bytea, embedding halfvec")


@dataclass(frozen=True)
class SeenContent:
    """The bytes of an image that were read under an etag. ``width`` and ``height`` are those of the upright image."""

    image_id: int
    etag: str
    content_hash: bytes
    width: int | None
    height: int | None


# Without equality, like `Embedding`, because arrays compare element by element.
@dataclass(frozen=True, eq=False)
class Tag:
    """A classifier's tag. ``probabilities``, float32 [categories], are in the order of the classifier's categories."""

    image_id: int
    content_hash: bytes
    category: str
    confidence: float
    top_3: tuple[tuple[str, float], ...]
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoder's vector of unit length, float32 [dimensions]."""

    image_id: int
    content_hash: bytes
    vector: np.ndarray


@dataclass(frozen=True)
class ContentCopy:
    """An image whose bytes already have a result, under any key."""

    image_id: int
    content_hash: bytes


def record_contents(connection: Connection, contents: Sequence[SeenContent]) -> None:
    """Store the hash and size of each image's bytes, unless a listing has found other bytes in the meantime.

    Images that were not decoded get the size of another image with the same bytes.
    """
    sizes = {content.content_hash: (content.width, content.height) for content in contents if content.width}
    known = [sizes.get(content.content_hash, (None, None)) for content in contents]
    connection.execute(
        text("""
            UPDATE catalog.images i
            SET content_hash = s.content_hash,
                width = coalesce(s.width, twin.width, i.width), height = coalesce(s.height, twin.height, i.height)
            FROM unnest(CAST(:ids AS bigint[]), CAST(:etags AS text[]), CAST(:hashes AS bytea[]),
                        CAST(:widths AS int[]), CAST(:heights AS int[]))
                     AS s (image_id, etag, content_hash, width, height)
            LEFT JOIN LATERAL (
                SELECT t.width, t.height FROM catalog.images t
                WHERE s.width IS NULL AND t.content_hash = s.content_hash AND t.width IS NOT NULL LIMIT 1
            ) twin ON true
            WHERE i.image_id = s.image_id AND i.etag = s.etag
        """),
        {
            "ids": [content.image_id for content in contents],
            "etags": [content.etag for content in contents],
            "hashes": [content.content_hash for content in contents],
            "widths": [width for width, _ in known],
            "heights": [height for _, height in known],
        },
    )


def upsert_tags(
    connection: Connection, classifier_version_id: int | None, build_id: int | None, tags: Sequence[Tag]
) -> None:
    """Store tags that a build of a classifier has computed. If there is no classifier, there are no tags."""
    if not tags:
        return
    columns = {
        "image_id": encode_bigints(tag.image_id for tag in tags),
        "category": encode_texts(tag.category for tag in tags),
        "confidence": encode_reals(tag.confidence for tag in tags),
        "top_3": encode_jsonb(_top_3_document(tag) for tag in tags),
        "probabilities": encode_real_arrays(np.stack([tag.probabilities for tag in tags])),
        "content_hash": [tag.content_hash for tag in tags],
    }
    _stage(connection, STAGED_TAGS, columns)
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags (image_id, classifier_version_id, build_id, category, confidence, top_3,
                                            probabilities, content_hash)
            SELECT image_id, :classifier, :build, category, confidence, top_3, probabilities, content_hash
            FROM pg_temp.staged_tags
            ON CONFLICT (image_id, classifier_version_id) DO UPDATE
            SET build_id = excluded.build_id, category = excluded.category, confidence = excluded.confidence,
                top_3 = excluded.top_3, probabilities = excluded.probabilities,
                content_hash = excluded.content_hash, tagged_at = now()
        """),
        {"classifier": classifier_version_id, "build": build_id},
    )


def copy_tags(connection: Connection, classifier_version_id: int | None, copies: Sequence[ContentCopy]) -> None:
    """Give each image the tag that the classifier gave to the same bytes."""
    if not copies:
        return
    copied = connection.execute(
        text("""
            INSERT INTO catalog.image_tags (image_id, classifier_version_id, build_id, category, confidence, top_3,
                                            probabilities, content_hash)
            SELECT s.image_id, :classifier, t.build_id, t.category, t.confidence, t.top_3, t.probabilities,
                   t.content_hash
            FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS bytea[])) AS s (image_id, content_hash)
            CROSS JOIN LATERAL (
                SELECT * FROM catalog.image_tags t
                WHERE t.content_hash = s.content_hash AND t.classifier_version_id = :classifier
                ORDER BY t.tagged_at DESC, t.image_id LIMIT 1
            ) t
            ON CONFLICT (image_id, classifier_version_id) DO UPDATE
            SET build_id = excluded.build_id, category = excluded.category, confidence = excluded.confidence,
                top_3 = excluded.top_3, probabilities = excluded.probabilities,
                content_hash = excluded.content_hash, tagged_at = now()
        """),
        {"classifier": classifier_version_id, **_copy_parameters(copies)},
    )
    _require_all_copied(copied.rowcount, copies)


def upsert_embeddings(connection: Connection, space_id: int, build_id: int, embeddings: Sequence[Embedding]) -> None:
    """Store vectors that a build of an encoder has computed."""
    if not embeddings:
        return
    columns = {
        "image_id": encode_bigints(embedding.image_id for embedding in embeddings),
        "content_hash": [embedding.content_hash for embedding in embeddings],
        "embedding": encode_halfvecs(np.stack([embedding.vector for embedding in embeddings])),
    }
    _stage(connection, STAGED_EMBEDDINGS, columns)
    connection.execute(
        text("""
            INSERT INTO catalog.image_embeddings (space_id, image_id, build_id, content_hash, embedding)
            SELECT :space, image_id, :build, content_hash, embedding FROM pg_temp.staged_embeddings
            ON CONFLICT (space_id, image_id) DO UPDATE
            SET build_id = excluded.build_id, content_hash = excluded.content_hash, embedding = excluded.embedding,
                embedded_at = now()
        """),
        {"space": space_id, "build": build_id},
    )


def copy_embeddings(connection: Connection, space_id: int, copies: Sequence[ContentCopy]) -> None:
    """Give each image the vector that the space has for the same bytes."""
    copied = connection.execute(
        text("""
            INSERT INTO catalog.image_embeddings (space_id, image_id, build_id, content_hash, embedding)
            SELECT :space, s.image_id, e.build_id, e.content_hash, e.embedding
            FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS bytea[])) AS s (image_id, content_hash)
            CROSS JOIN LATERAL (
                SELECT * FROM catalog.image_embeddings e
                WHERE e.content_hash = s.content_hash AND e.space_id = :space
                ORDER BY e.embedded_at DESC, e.image_id LIMIT 1
            ) e
            ON CONFLICT (space_id, image_id) DO UPDATE
            SET build_id = excluded.build_id, content_hash = excluded.content_hash, embedding = excluded.embedding,
                embedded_at = now()
        """),
        {"space": space_id, **_copy_parameters(copies)},
    )
    _require_all_copied(copied.rowcount, copies)


def delete_stale_results(connection: Connection, image_ids: Sequence[int]) -> None:
    """Delete the tags and vectors of failed images that belong to other bytes than the current ones.

    Results of the current bytes stay. The bytes may have been processed before, and fail now with another model or
    under narrower limits.
    """
    for statement in (FORGET_TAGS, FORGET_EMBEDDINGS):
        connection.execute(text(statement), {"ids": list(image_ids)})


FORGET_TAGS = """
    DELETE FROM catalog.image_tags a USING catalog.images i
    WHERE a.image_id = ANY (:ids) AND i.image_id = a.image_id AND a.content_hash IS DISTINCT FROM i.content_hash
"""
FORGET_EMBEDDINGS = """
    DELETE FROM catalog.image_embeddings a USING catalog.images i
    WHERE a.image_id = ANY (:ids) AND i.image_id = a.image_id AND a.content_hash IS DISTINCT FROM i.content_hash
"""


def _top_3_document(tag: Tag) -> str:
    return json.dumps([{"category": category, "confidence": confidence} for category, confidence in tag.top_3])


def _stage(connection: Connection, staging: StagingTable, columns: Mapping[str, EncodedColumn]) -> None:
    """Replace the rows in a staging table."""
    exists = text("SELECT to_regclass(:name) IS NOT NULL")
    if connection.scalar(exists, {"name": f"pg_temp.{staging.name}"}):
        connection.execute(delete(table(staging.name, schema="pg_temp")))
    else:
        create = f"CREATE TEMPORARY TABLE {staging.name} ({staging.columns}) ON COMMIT DELETE ROWS"
        connection.execute(text(create))
    copy_rows(connection, f"pg_temp.{staging.name}", columns)


def _require_all_copied(copied: int, copies: Sequence[ContentCopy]) -> None:
    if copied < len({copy.image_id for copy in copies}):
        raise RetryableError("another process overwrote results that this one was copying; run the same command again")


def _copy_parameters(copies: Sequence[ContentCopy]) -> dict[str, list[int] | list[bytes]]:
    return {
        "ids": [copy.image_id for copy in copies],
        "hashes": [copy.content_hash for copy in copies],
    }
