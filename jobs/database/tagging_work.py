"""Which images are due for which model, and which answers can be copied instead of computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

DUE_IMAGES = """
    FROM catalog.images i
    LEFT JOIN catalog.image_tags t
           ON t.image_id = i.image_id AND t.classifier_version_id = :classifier AND t.content_hash = i.content_hash
    LEFT JOIN catalog.image_embeddings e
           ON e.image_id = i.image_id AND e.space_id = :space AND e.content_hash = i.content_hash
    LEFT JOIN catalog.item_failures f ON f.image_id = i.image_id AND f.resolved_at IS NULL
    WHERE i.bucket = :bucket AND starts_with(i.object_key, :prefix) AND i.deleted_at IS NULL
      AND (:force OR ((CAST(:classifier AS integer) IS NOT NULL AND t.image_id IS NULL OR e.image_id IS NULL)
                      AND (f.image_id IS NULL OR f.etag <> i.etag OR f.retry_asked_at IS NOT NULL
                           OR (f.ignored_at IS NULL AND f.reason = ANY (:retryable)
                               AND (f.attempts < :max_attempts OR f.last_failed_at < now() - interval '7 days')))))
"""


@dataclass(frozen=True)
class WorkQuery:
    """Which images are due.

    ``classifier`` is None where no tags are due, ``space`` while the encoder has none, ``limit`` for all.
    """

    bucket: str
    prefix: str
    classifier: int | None
    space: int | None
    force: bool
    retryable: tuple[str, ...]
    max_attempts: int
    limit: int | None


@dataclass(frozen=True)
class DueImage:
    """An image that one of the run's models has not seen under its present bytes."""

    image_id: int
    object_key: str
    etag: str
    size_bytes: int
    reason: str
    needs_tag: bool
    needs_embedding: bool


def stream_due_images(connection: Connection, query: WorkQuery) -> Iterator[DueImage]:
    """Yield the images to work on, equal work together, then by etag, so that equal bytes are neighbours."""
    statement = text(f"""
        SELECT i.image_id, i.object_key, i.etag, i.size_bytes,
               CASE WHEN f.etag = i.etag THEN 'retry'
                    WHEN i.content_hash IS NOT NULL AND t.image_id IS NULL
                         AND CAST(:classifier AS integer) IS NOT NULL THEN 'not_tagged'
                    WHEN i.content_hash IS NOT NULL AND e.image_id IS NULL THEN 'not_embedded'
                    WHEN i.content_hash IS NOT NULL THEN 'forced'
                    WHEN f.image_id IS NOT NULL OR i.width IS NOT NULL THEN 'changed'
                    ELSE 'new' END AS reason,
               CAST(:classifier AS integer) IS NOT NULL AND (:force OR t.image_id IS NULL) AS needs_tag,
               :force OR e.image_id IS NULL AS needs_embedding
        {DUE_IMAGES}
        ORDER BY needs_tag DESC, needs_embedding DESC, i.etag, i.image_id
        LIMIT :limit
    """)
    parameters = {**vars(query), "retryable": list(query.retryable)}
    for row in connection.execute(statement, parameters, execution_options={"yield_per": 1000}):
        yield DueImage(*row)


@dataclass(frozen=True)
class KnownContent:
    """Hashes of bytes for which an answer is already stored."""

    tagged: frozenset[bytes]
    embedded: frozenset[bytes]


def find_known_content(
    connection: Connection, hashes: Sequence[bytes], classifier: int | None, space: int
) -> KnownContent:
    """Which of these bytes the classifier has tagged, and which have a vector in the space, under any key.

    Answers of images whose bytes have changed do not count: this very run is about to overwrite them.
    """
    statement = text("""
        SELECT h,
               EXISTS (SELECT FROM catalog.image_tags t JOIN catalog.images i USING (image_id, content_hash)
                       WHERE t.content_hash = h AND t.classifier_version_id = :classifier),
               EXISTS (SELECT FROM catalog.image_embeddings e JOIN catalog.images i USING (image_id, content_hash)
                       WHERE e.content_hash = h AND e.space_id = :space)
        FROM unnest(CAST(:hashes AS bytea[])) AS h
    """)
    rows: Sequence[Any] = connection.execute(
        statement, {"hashes": list(hashes), "classifier": classifier, "space": space}
    ).all()
    return KnownContent(
        frozenset(bytes(content) for content, is_tagged, _ in rows if is_tagged),
        frozenset(bytes(content) for content, _, is_embedded in rows if is_embedded),
    )


def list_live_buckets(connection: Connection) -> list[str]:
    """The buckets that hold the images of the catalog."""
    statement = text("SELECT DISTINCT bucket FROM catalog.images WHERE deleted_at IS NULL ORDER BY bucket")
    return list(connection.execute(statement).scalars())
