"""What people answer: each answer is a label, which wins at once, and a record of why the photo was asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.categories import list_categories
from jobs.database.examples import NOT_CLOTHING
from jobs.review.queue import Reason, read_live_classifier


class ReviewRefusedError(ValueError):
    """An answer that cannot be taken, or taken back; the message is for whoever gave it."""


@dataclass(frozen=True)
class Answer:
    """A category, or `NOT_CLOTHING`, and why the photo was shown."""

    image_id: int
    reason: Reason
    answer: str


@dataclass(frozen=True)
class PastAnswer:
    """An answer that somebody gave, and what the classifier had said."""

    review_id: int
    image_id: int
    product_id: str
    reason: Reason
    answer: str
    model_category: str
    reviewed_at: datetime
    is_undone: bool


def list_answers(connection: Connection) -> tuple[str, ...]:
    """All categories that may be answered, without `NOT_CLOTHING`."""
    return tuple(category for category in list_categories(connection) if category != NOT_CLOTHING)


def record_answers(connection: Connection, answers: Sequence[Answer], reviewed_by: str) -> list[int]:
    """Store answers as labels; returns the ids of the reviews, in their order.

    Raises:
        ReviewRefusedError: no such category, or a photo that is gone, that the live classifier has not tagged, or for
            which somebody else has answered; nothing is stored then.
    """
    version = read_live_classifier(connection)
    if version is None:
        raise ReviewRefusedError("No classifier is live, so that there is nothing to review.")
    known = {*list_answers(connection), NOT_CLOTHING}
    for answer in answers:
        if answer.answer not in known:
            raise ReviewRefusedError(
                f"There is no category {answer.answer!r}. New categories come with imported labels and a retraining."
            )
    return [_record(connection, version, answer, reviewed_by) for answer in answers]


def _record(connection: Connection, classifier_version_id: int, answer: Answer, reviewed_by: str) -> int:
    _require_first(connection, classifier_version_id, answer.image_id, reviewed_by)
    review_id: int | None = connection.execute(
        text("""
            WITH tag AS (
                SELECT t.image_id, t.category, t.confidence
                FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
                WHERE t.image_id = :image AND t.classifier_version_id = :version AND i.deleted_at IS NULL
            ), label AS (
                INSERT INTO catalog.labels (image_id, category, labelled_by)
                SELECT image_id, :answer, :person FROM tag RETURNING label_id
            )
            INSERT INTO catalog.reviews (image_id, classifier_version_id, model_category, confidence, reason, answer,
                                         label_id, reviewed_by)
            SELECT tag.image_id, :version, tag.category, tag.confidence, :reason, :answer, label.label_id, :person
            FROM tag CROSS JOIN label
            RETURNING review_id
        """),
        {
            "image": answer.image_id,
            "version": classifier_version_id,
            "answer": answer.answer,
            "reason": answer.reason,
            "person": reviewed_by,
        },
    ).scalar_one_or_none()
    if review_id is None:
        raise ReviewRefusedError(
            f"Photo {answer.image_id} is gone, or the live classifier has not tagged it: load the page again."
        )
    return review_id


def _require_first(connection: Connection, classifier_version_id: int, image_id: int, reviewed_by: str) -> None:
    # Held until the commit, so that of two answers at the same moment one sees the other.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('review', :image))"), {"image": image_id})
    first = connection.execute(
        text("""
            SELECT answer, reviewed_by FROM catalog.reviews
            WHERE image_id = :image AND classifier_version_id = :version
              AND undone_at IS NULL AND reviewed_by <> :person
            ORDER BY review_id DESC LIMIT 1
        """),
        {"image": image_id, "version": classifier_version_id, "person": reviewed_by},
    ).one_or_none()
    if first is not None:
        raise ReviewRefusedError(f"{first.reviewed_by} has answered for photo {image_id} already: {first.answer}.")


def undo_answer(connection: Connection, review_id: int, undone_by: str) -> None:
    """Take an answer back, with its label; what was in force before is in force again.

    Raises:
        ReviewRefusedError: there is no such answer, it is undone already, or somebody has answered since.
    """
    row = connection.execute(
        text("SELECT image_id, label_id, undone_by FROM catalog.reviews WHERE review_id = :id FOR UPDATE"),
        {"id": review_id},
    ).one_or_none()
    if row is None:
        raise ReviewRefusedError(f"There is no answer {review_id}.")
    if row.undone_by is not None:
        raise ReviewRefusedError(f"This answer was undone already, by {row.undone_by}.")
    later = connection.execute(
        text("""
            SELECT labelled_by FROM catalog.labels
            WHERE image_id = :image AND label_id > :label ORDER BY label_id DESC LIMIT 1
        """),
        {"image": row.image_id, "label": row.label_id},
    ).scalar_one_or_none()
    if later is not None:
        raise ReviewRefusedError(f"This answer is no longer in force: {later} has answered since.")
    connection.execute(
        text("UPDATE catalog.reviews SET undone_by = :person, undone_at = now() WHERE review_id = :id"),
        {"person": undone_by, "id": review_id},
    )
    connection.execute(text("DELETE FROM catalog.labels WHERE label_id = :label"), {"label": row.label_id})


def read_past_answers(connection: Connection, reviewed_by: str, size: int) -> tuple[PastAnswer, ...]:
    """What somebody answered last, the latest first."""
    rows = connection.execute(
        text("""
            SELECT r.review_id, r.image_id, i.product_id, r.reason, r.answer, r.model_category, r.reviewed_at,
                   r.undone_at IS NOT NULL AS is_undone
            FROM catalog.reviews r JOIN catalog.images i USING (image_id)
            WHERE r.reviewed_by = :person ORDER BY r.review_id DESC LIMIT :size
        """),
        {"person": reviewed_by, "size": size},
    )
    return tuple(PastAnswer(**row._mapping) for row in rows)
