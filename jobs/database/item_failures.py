"""Queries on ``item_failures``: images that could not be tagged, and people's decisions to retry or ignore them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.records import read_records
from jobs.run_titles import title_run


@dataclass(frozen=True)
class ItemFailure:
    """An image that could not be tagged. ``stage`` and ``reason`` are values of the enums in `jobs.failures`."""

    image_id: int
    etag: str
    stage: str
    reason: str
    detail: str


def keep_current(connection: Connection, failures: Sequence[ItemFailure]) -> tuple[ItemFailure, ...]:
    """Return the failures whose image still has the same bytes in the latest listing."""
    if not failures:
        return ()
    rows = connection.execute(
        text("SELECT image_id, etag FROM catalog.images WHERE image_id = ANY (:ids) AND deleted_at IS NULL"),
        {"ids": [failure.image_id for failure in failures]},
    )
    listed = {(row.image_id, row.etag) for row in rows}
    return tuple(failure for failure in failures if (failure.image_id, failure.etag) in listed)


def record_failures(connection: Connection, run_id: str, failures: Sequence[ItemFailure]) -> None:
    """Store one row for each failed image. Another failure of the same bytes counts as another attempt."""
    connection.execute(
        text("""
            INSERT INTO catalog.item_failures AS f (image_id, etag, stage, reason, detail, run_id)
            SELECT s.*, :run FROM unnest(CAST(:ids AS bigint[]), CAST(:etags AS text[]), CAST(:stages AS text[]),
                                         CAST(:reasons AS text[]), CAST(:details AS text[])) AS s
            ON CONFLICT (image_id) DO UPDATE
            SET etag = excluded.etag, stage = excluded.stage, reason = excluded.reason, detail = excluded.detail,
                run_id = excluded.run_id, last_failed_at = now(), resolved_at = NULL,
                retry_requested_by = NULL, retry_requested_at = NULL,
                ignored_by = CASE WHEN f.etag = excluded.etag AND f.resolved_at IS NULL THEN f.ignored_by END,
                ignored_at = CASE WHEN f.etag = excluded.etag AND f.resolved_at IS NULL THEN f.ignored_at END,
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


def resolve_failures(connection: Connection, image_ids: Sequence[int]) -> None:
    """Mark the failures of these images as resolved, because they have been tagged now."""
    connection.execute(
        text("""
            UPDATE catalog.item_failures
            SET resolved_at = now(), retry_requested_by = NULL, retry_requested_at = NULL,
                ignored_by = NULL, ignored_at = NULL
            WHERE image_id = ANY (:ids) AND resolved_at IS NULL
        """),
        {"ids": list(image_ids)},
    )


def retry_failures(connection: Connection, image_ids: Sequence[int], asked_by: str) -> int:
    """Make the next ingest retry these images, even if no attempts are left. Return how many are still open."""
    statement = text("""
        UPDATE catalog.item_failures
        SET retry_requested_by = :person, retry_requested_at = now(), ignored_by = NULL, ignored_at = NULL
        WHERE image_id = ANY (:ids) AND resolved_at IS NULL
    """)
    return connection.execute(statement, {"person": asked_by, "ids": list(image_ids)}).rowcount


def ignore_failures(connection: Connection, image_ids: Sequence[int], ignored_by: str) -> int:
    """Stop retrying and reporting these images until their bytes change. Return how many are still open."""
    statement = text("""
        UPDATE catalog.item_failures
        SET ignored_by = :person, ignored_at = now(), retry_requested_by = NULL, retry_requested_at = NULL
        WHERE image_id = ANY (:ids) AND resolved_at IS NULL
    """)
    return connection.execute(statement, {"person": ignored_by, "ids": list(image_ids)}).rowcount


@dataclass(frozen=True)
class FailureCount:
    """The number of failed images with one reason. If ``is_temporary`` is true, later runs retry them."""

    reason: str
    stage: str
    images: int
    is_temporary: bool


def count_failures(connection: Connection) -> tuple[FailureCount, ...]:
    """Count open failures by reason, the most frequent first."""
    statement = text("SELECT * FROM catalog.item_failure_summary ORDER BY images DESC, reason")
    return tuple(read_records(connection.execute(statement), FailureCount))


@dataclass(frozen=True)
class OpenFailure:
    """A failed image in the bucket, with its attempts and who requested a retry or ignores it."""

    image_id: int
    product_id: str
    object_key: str
    size_bytes: int
    etag: str
    stage: str
    reason: str
    detail: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    run_id: str
    retry_requested_by: str | None
    ignored_by: str | None
    ignored_at: datetime | None

    @property
    def run_title(self) -> str:
        """Return the title of the run for people."""
        return title_run(self.run_id)


@dataclass(frozen=True)
class FailurePage:
    """A page of failures. The next page, if there is one, starts after the image ``next_after``."""

    failures: tuple[OpenFailure, ...]
    next_after: int | None


def read_failure_page(
    connection: Connection, reason: str | None, after: int | None, size: int, *, ignored: bool = False
) -> FailurePage:
    """Return the ``size`` open failures after an image, newest images first. ``reason`` selects one reason.

    The page contains either only ignored failures or only the others.
    """
    rows = connection.execute(
        text("""
            SELECT f.*, i.product_id, i.object_key, i.size_bytes
            FROM catalog.item_failures f JOIN catalog.images i USING (image_id)
            WHERE f.resolved_at IS NULL AND i.deleted_at IS NULL
              AND (f.ignored_at IS NOT NULL) = :ignored
              AND (CAST(:reason AS text) IS NULL OR f.reason = :reason)
              AND (CAST(:after AS bigint) IS NULL OR f.image_id < :after)
            ORDER BY f.image_id DESC LIMIT :limit
        """),
        {"reason": reason, "after": after, "ignored": ignored, "limit": size + 1},
    )
    failures = tuple(read_records(rows, OpenFailure))
    return FailurePage(failures[:size], failures[size - 1].image_id if len(failures) > size else None)
