"""Queries for what a reviewer did: the answers stored together, and the answers since their last pause."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.records import read_record
from jobs.database.reviews import ReviewReason

PAUSE_MINUTES = 30
"""A sitting ends when a reviewer does not answer for this long."""
MAX_SITTING = 2_000
"""Only this many of a reviewer's latest answers are read. A longer sitting counts as this many."""
BATCH_REACH = 2_000
"""Answers stored together have ids within this distance, even if others answer at the same time."""


@dataclass(frozen=True)
class AnswerBatch:
    """The answers that one person stored in one transaction, such as a relabeling of several images.

    Answers that were undone since are left out, unless all were (``is_undone``). ``answer`` is None if the answers
    differ. ``display_name`` and ``product_id`` are those of one of the images.
    """

    review_id: int
    image_ids: tuple[int, ...]
    answer: str | None
    product_id: str
    display_name: str | None
    is_undone: bool


def read_batch(connection: Connection, review_id: int, reviewed_by: str) -> AnswerBatch | None:
    """Return the answers that were stored together with one of this person, or None if it is not theirs."""
    statement = text("""
        SELECT max(r.review_id) AS review_id, array_agg(r.image_id ORDER BY r.review_id) AS image_ids,
               CASE count(DISTINCT r.answer) WHEN 1 THEN min(r.answer) END AS answer,
               min(i.product_id) AS product_id, min(p.display_name) AS display_name,
               bool_and(r.undone_at IS NOT NULL) AS is_undone
        FROM catalog.reviews r JOIN catalog.images i USING (image_id) JOIN catalog.products p USING (product_id)
        WHERE r.review_id = ANY (:ids) HAVING count(*) > 0
    """)
    ids = list_stored_together(connection, review_id, reviewed_by)
    return read_record(connection.execute(statement, {"ids": list(ids)}), AnswerBatch)


def list_stored_together(connection: Connection, review_id: int, reviewed_by: str) -> Sequence[int]:
    """Return the ids of the reviews that one person stored in the same transaction, or none if it is not theirs.

    Undone reviews are left out, unless all are undone. All rows of a transaction have the same ``reviewed_at``, because
    ``now()`` is its start.
    """
    statement = text("""
        SELECT review_id FROM (
            SELECT r.review_id, r.undone_at, bool_and(r.undone_at IS NOT NULL) OVER () AS is_undone
            FROM catalog.reviews one
            CROSS JOIN LATERAL (
                SELECT review_id, reviewed_at, undone_at FROM catalog.reviews
                WHERE reviewed_by = one.reviewed_by
                  AND review_id BETWEEN one.review_id - :reach AND one.review_id + :reach
            ) r
            WHERE one.review_id = :id AND one.reviewed_by = :person AND r.reviewed_at = one.reviewed_at
        ) together
        WHERE is_undone OR undone_at IS NULL
        ORDER BY 1
    """)
    parameters = {"id": review_id, "person": reviewed_by, "reach": BATCH_REACH}
    return connection.execute(statement, parameters).scalars().all()


def count_sitting(connection: Connection, reviewed_by: str, reasons: Sequence[ReviewReason]) -> int:
    """Count the answers of a person for these reasons since their last pause, except those that were undone."""
    statement = text("""
        WITH recent AS (
            SELECT review_id, reason, undone_at,
                   coalesce(lag(reviewed_at) OVER (ORDER BY review_id DESC), now()) - reviewed_at
                       > make_interval(mins => :pause) AS is_before_pause
            FROM (
                SELECT * FROM catalog.reviews WHERE reviewed_by = :person ORDER BY review_id DESC LIMIT :size
            ) latest
        )
        SELECT count(*) FROM recent
        WHERE undone_at IS NULL AND reason = ANY (:reasons)
          AND review_id > coalesce((SELECT max(review_id) FROM recent WHERE is_before_pause), 0)
    """)
    parameters = {"person": reviewed_by, "reasons": list(reasons), "pause": PAUSE_MINUTES, "size": MAX_SITTING}
    count: int = connection.execute(statement, parameters).scalar_one()
    return count
