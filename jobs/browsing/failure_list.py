"""Images that could not be tagged, page by page."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class FailureCard:
    """An image in the bucket that the latest run which asked it gave up on."""

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
    retry_asked_by: str | None
    ignored_by: str | None
    ignored_at: datetime | None


@dataclass(frozen=True)
class FailurePage:
    """Some failures, and the image after which the next page begins, if there is one."""

    failures: tuple[FailureCard, ...]
    next_after: int | None


def read_failure_page(
    connection: Connection, reason: str | None, after: int | None, size: int, *, ignored: bool = False
) -> FailurePage:
    """The ``size`` open failures that follow an image, of one reason if one is given; the latest images first.

    What somebody ignores is another list.
    """
    rows = connection.execute(
        text("""
            SELECT f.image_id, i.product_id, i.object_key, i.size_bytes, f.etag, f.stage, f.reason, f.detail,
                   f.attempts, f.first_failed_at, f.last_failed_at, f.run_id, f.retry_asked_by,
                   f.ignored_by, f.ignored_at
            FROM catalog.item_failures f JOIN catalog.images i USING (image_id)
            WHERE f.resolved_at IS NULL AND i.deleted_at IS NULL
              AND (f.ignored_at IS NOT NULL) = :ignored
              AND (CAST(:reason AS text) IS NULL OR f.reason = :reason)
              AND (CAST(:after AS bigint) IS NULL OR f.image_id < :after)
            ORDER BY f.image_id DESC LIMIT :limit
        """),
        {"reason": reason, "after": after, "ignored": ignored, "limit": size + 1},
    ).all()
    cards = tuple(FailureCard(**row._mapping) for row in rows[:size])
    return FailurePage(cards, cards[-1].image_id if len(rows) > size else None)
