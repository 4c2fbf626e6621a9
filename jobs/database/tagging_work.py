"""Find the images that models have to process, and results that can be copied instead of computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.records import read_records


@dataclass(frozen=True)
class WorkQuery:
    """Which due images to select.

    ``classifier`` is None if no tags are due, ``space`` if the encoder has none yet, ``keys`` if all keys count.
    """

    bucket: str
    prefix: str
    classifier: int | None
    space: int | None
    force: bool
    retryable: tuple[str, ...]
    max_attempts: int
    limit: int | None
    keys: tuple[str, ...] | None


@dataclass(frozen=True)
class DueImage:
    """An image whose current bytes a model of the run has to process."""

    image_id: int
    object_key: str
    etag: str
    size_bytes: int
    reason: str
    needs_tag: bool
    needs_embedding: bool


@dataclass(frozen=True)
class DueImages:
    """The images that are due, and their number, which is known before they are read."""

    total: int
    images: Iterator[DueImage]


@dataclass(frozen=True)
class _CountedImage:
    image: DueImage
    total: int


def stream_due_images(connection: Connection, query: WorkQuery) -> DueImages:
    """Stream the due images, sorted by what they need and then by etag, which puts equal bytes next to each other."""
    statement = text("""
        SELECT i.image_id, i.object_key, i.etag, i.size_bytes,
               CASE WHEN f.etag = i.etag THEN 'retry'
                    WHEN i.content_hash IS NOT NULL AND t.image_id IS NULL
                         AND CAST(:classifier AS integer) IS NOT NULL THEN 'not_tagged'
                    WHEN i.content_hash IS NOT NULL AND e.image_id IS NULL THEN 'not_embedded'
                    WHEN i.content_hash IS NOT NULL THEN 'forced'
                    WHEN f.image_id IS NOT NULL OR i.width IS NOT NULL THEN 'changed'
                    ELSE 'new' END AS reason,
               CAST(:classifier AS integer) IS NOT NULL AND (:force OR t.image_id IS NULL) AS needs_tag,
               :force OR e.image_id IS NULL AS needs_embedding,
               least(count(*) OVER (), CAST(:limit AS bigint)) AS total
        FROM catalog.images i
        LEFT JOIN catalog.image_tags t
               ON t.image_id = i.image_id AND t.classifier_version_id = :classifier AND t.content_hash = i.content_hash
        LEFT JOIN catalog.image_embeddings e
               ON e.image_id = i.image_id AND e.space_id = :space AND e.content_hash = i.content_hash
        LEFT JOIN catalog.item_failures f ON f.image_id = i.image_id AND f.resolved_at IS NULL
        WHERE i.bucket = :bucket AND starts_with(i.object_key, :prefix) AND i.deleted_at IS NULL
          AND (CAST(:keys AS text[]) IS NULL OR i.object_key = ANY (CAST(:keys AS text[])))
          AND (:force OR ((CAST(:classifier AS integer) IS NOT NULL AND t.image_id IS NULL OR e.image_id IS NULL)
                          AND (f.image_id IS NULL OR f.etag <> i.etag OR f.retry_requested_at IS NOT NULL
                               OR (f.ignored_at IS NULL AND f.reason = ANY (:retryable)
                                   AND (f.attempts < :max_attempts
                                        OR f.last_failed_at < now() - interval '7 days')))))
        ORDER BY needs_tag DESC, needs_embedding DESC, i.etag, i.image_id
        LIMIT :limit
    """)
    parameters = {
        **vars(query),
        "retryable": list(query.retryable),
        "keys": None if query.keys is None else list(query.keys),
    }
    rows = connection.execute(statement, parameters, execution_options={"yield_per": 1000})
    counted = read_records(rows, _CountedImage)
    first = next(counted, None)
    if first is None:
        return DueImages(0, iter(()))
    return DueImages(first.total, (one.image for one in chain([first], counted)))


@dataclass(frozen=True)
class KnownContent:
    """Hashes of bytes that have a stored tag, and of bytes that have a stored vector."""

    tagged: frozenset[bytes]
    embedded: frozenset[bytes]


def find_known_content(
    connection: Connection, hashes: Sequence[bytes], classifier: int | None, space: int
) -> KnownContent:
    """Return which bytes have a tag of the classifier, and which have a vector in the space, under any key.

    Results of images whose bytes have changed do not count, because this run is about to overwrite them.
    """
    statement = text("""
        SELECT h AS content_hash,
               EXISTS (SELECT FROM catalog.image_tags t JOIN catalog.images i USING (image_id, content_hash)
                       WHERE t.content_hash = h AND t.classifier_version_id = :classifier) AS is_tagged,
               EXISTS (SELECT FROM catalog.image_embeddings e JOIN catalog.images i USING (image_id, content_hash)
                       WHERE e.content_hash = h AND e.space_id = :space) AS is_embedded
        FROM unnest(CAST(:hashes AS bytea[])) AS h
    """)
    rows: Sequence[Any] = connection.execute(
        statement, {"hashes": list(hashes), "classifier": classifier, "space": space}
    ).all()
    return KnownContent(
        frozenset(row.content_hash for row in rows if row.is_tagged),
        frozenset(row.content_hash for row in rows if row.is_embedded),
    )


def list_live_buckets(connection: Connection) -> list[str]:
    """List the buckets that contain images of the catalog."""
    statement = text("SELECT DISTINCT bucket FROM catalog.images WHERE deleted_at IS NULL ORDER BY bucket")
    return list(connection.execute(statement).scalars())
