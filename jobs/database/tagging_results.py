"""Writing what became of a chunk, all of it in the caller's transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.errors import RetryableError


@dataclass(frozen=True)
class SeenContent:
    """The bytes of an image that were read under an etag; sizes in pixels after EXIF orientation."""

    image_id: int
    etag: str
    content_hash: bytes
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Tag:
    """A classifier's answer: ``probabilities`` in the order of its categories."""

    image_id: int
    content_hash: bytes
    category: str
    confidence: float
    top_3: tuple[tuple[str, float], ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Embedding:
    """An encoder's answer, a vector of unit length."""

    image_id: int
    content_hash: bytes
    vector: tuple[float, ...]


@dataclass(frozen=True)
class ContentCopy:
    """An image whose bytes were answered before, under whatever key."""

    image_id: int
    content_hash: bytes


@dataclass(frozen=True)
class ItemFailure:
    """One image that could not be tagged, and why; ``reason`` is one of `jobs.tagging.failures.Reason`."""

    image_id: int
    etag: str
    stage: str
    reason: str
    detail: str


def record_contents(connection: Connection, contents: Sequence[SeenContent]) -> None:
    """Note the hash and size of each image's bytes, unless the bucket was listed with other bytes meanwhile.

    Images that were not decoded have the size of others with the same bytes.
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


def upsert_tags(connection: Connection, classifier_version_id: int, tags: Sequence[Tag]) -> None:
    """Store a classifier's answers."""
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags (image_id, classifier_version_id, category, confidence, top_3,
                                            probabilities, content_hash)
            SELECT image_id, :classifier, category, confidence, top_3::jsonb, probabilities::real[], content_hash
            FROM unnest(CAST(:ids AS bigint[]), CAST(:categories AS text[]), CAST(:confidences AS real[]),
                        CAST(:tops AS text[]), CAST(:probabilities AS text[]), CAST(:hashes AS bytea[]))
                     AS s (image_id, category, confidence, top_3, probabilities, content_hash)
            ON CONFLICT (image_id, classifier_version_id) DO UPDATE
            SET category = excluded.category, confidence = excluded.confidence, top_3 = excluded.top_3,
                probabilities = excluded.probabilities, content_hash = excluded.content_hash, tagged_at = now()
        """),
        {
            "classifier": classifier_version_id,
            "ids": [tag.image_id for tag in tags],
            "categories": [tag.category for tag in tags],
            "confidences": [tag.confidence for tag in tags],
            "tops": [
                json.dumps([{"category": category, "confidence": confidence} for category, confidence in tag.top_3])
                for tag in tags
            ],
            "probabilities": [f"{{{','.join(map(str, tag.probabilities))}}}" for tag in tags],
            "hashes": [tag.content_hash for tag in tags],
        },
    )


def copy_tags(connection: Connection, classifier_version_id: int, copies: Sequence[ContentCopy]) -> None:
    """Give images the tag that the classifier gave to the same bytes."""
    copied = connection.execute(
        text("""
            INSERT INTO catalog.image_tags (image_id, classifier_version_id, category, confidence, top_3,
                                            probabilities, content_hash)
            SELECT s.image_id, :classifier, t.category, t.confidence, t.top_3, t.probabilities, t.content_hash
            FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS bytea[])) AS s (image_id, content_hash)
            CROSS JOIN LATERAL (
                SELECT * FROM catalog.image_tags t
                WHERE t.content_hash = s.content_hash AND t.classifier_version_id = :classifier
                ORDER BY t.tagged_at DESC, t.image_id LIMIT 1
            ) t
            ON CONFLICT (image_id, classifier_version_id) DO UPDATE
            SET category = excluded.category, confidence = excluded.confidence, top_3 = excluded.top_3,
                probabilities = excluded.probabilities, content_hash = excluded.content_hash, tagged_at = now()
        """),
        {"classifier": classifier_version_id, **_copy_parameters(copies)},
    )
    _require_all_copied(copied.rowcount, copies)


def upsert_embeddings(connection: Connection, space_id: int, embeddings: Sequence[Embedding]) -> None:
    """Store an encoder's answers."""
    connection.execute(
        text("""
            INSERT INTO catalog.image_embeddings (space_id, image_id, content_hash, embedding)
            SELECT :space, image_id, content_hash, embedding::halfvec
            FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS bytea[]), CAST(:vectors AS text[]))
                     AS s (image_id, content_hash, embedding)
            ON CONFLICT (space_id, image_id) DO UPDATE
            SET content_hash = excluded.content_hash, embedding = excluded.embedding, embedded_at = now()
        """),
        {
            "space": space_id,
            "ids": [embedding.image_id for embedding in embeddings],
            "hashes": [embedding.content_hash for embedding in embeddings],
            "vectors": [f"[{','.join(map(str, embedding.vector))}]" for embedding in embeddings],
        },
    )


def copy_embeddings(connection: Connection, space_id: int, copies: Sequence[ContentCopy]) -> None:
    """Give images the vector that the space holds for the same bytes."""
    copied = connection.execute(
        text("""
            INSERT INTO catalog.image_embeddings (space_id, image_id, content_hash, embedding)
            SELECT :space, s.image_id, e.content_hash, e.embedding
            FROM unnest(CAST(:ids AS bigint[]), CAST(:hashes AS bytea[])) AS s (image_id, content_hash)
            CROSS JOIN LATERAL (
                SELECT * FROM catalog.image_embeddings e
                WHERE e.content_hash = s.content_hash AND e.space_id = :space
                ORDER BY e.embedded_at DESC, e.image_id LIMIT 1
            ) e
            ON CONFLICT (space_id, image_id) DO UPDATE
            SET content_hash = excluded.content_hash, embedding = excluded.embedding, embedded_at = now()
        """),
        {"space": space_id, **_copy_parameters(copies)},
    )
    _require_all_copied(copied.rowcount, copies)


def record_failures(connection: Connection, run_id: str, failures: Sequence[ItemFailure]) -> None:
    """Store one row for each failed image; the same bytes failing again count as another attempt."""
    connection.execute(
        text("""
            INSERT INTO catalog.item_failures AS f (image_id, etag, stage, reason, detail, run_id)
            SELECT s.*, :run FROM unnest(CAST(:ids AS bigint[]), CAST(:etags AS text[]), CAST(:stages AS text[]),
                                         CAST(:reasons AS text[]), CAST(:details AS text[])) AS s
            ON CONFLICT (image_id) DO UPDATE
            SET etag = excluded.etag, stage = excluded.stage, reason = excluded.reason, detail = excluded.detail,
                run_id = excluded.run_id, last_failed_at = now(), resolved_at = NULL,
                attempts = CASE WHEN f.etag = excluded.etag AND f.resolved_at IS NULL THEN f.attempts + 1 ELSE 1 END,
                first_failed_at = CASE WHEN f.etag = excluded.etag AND f.resolved_at IS NULL
                                       THEN f.first_failed_at ELSE now() END
        """),
        {
            "run": run_id,
            "ids": [failure.image_id for failure in failures],
            "etags": [failure.etag for failure in failures],
            "stages": [failure.stage for failure in failures],
            "reasons": [failure.reason for failure in failures],
            "details": [failure.detail for failure in failures],
        },
    )


def forget_answers(connection: Connection, image_ids: Sequence[int]) -> None:
    """Drop the tags and vectors of images whose present bytes are no photo; answers to these very bytes stay.

    Bytes that one model has answered may fail under another, or under narrower limits: that takes nothing away.
    """
    for table in ("image_tags", "image_embeddings"):
        connection.execute(
            text(f"""
                DELETE FROM catalog.{table} a USING catalog.images i
                WHERE a.image_id = ANY (:ids) AND i.image_id = a.image_id
                  AND a.content_hash IS DISTINCT FROM i.content_hash
            """),
            {"ids": list(image_ids)},
        )


def resolve_failures(connection: Connection, image_ids: Sequence[int]) -> None:
    """Close the failures of images that were tagged after all."""
    connection.execute(
        text("""
            UPDATE catalog.item_failures SET resolved_at = now()
            WHERE image_id = ANY (:ids) AND resolved_at IS NULL
        """),
        {"ids": list(image_ids)},
    )


def _require_all_copied(copied: int, copies: Sequence[ContentCopy]) -> None:
    if copied < len({copy.image_id for copy in copies}):
        raise RetryableError("answers that were to be copied were overwritten meanwhile; run the same command again")


def _copy_parameters(copies: Sequence[ContentCopy]) -> dict[str, list[int] | list[bytes]]:
    return {
        "ids": [copy.image_id for copy in copies],
        "hashes": [copy.content_hash for copy in copies],
    }
