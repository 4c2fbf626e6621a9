"""Queries for reviews: which images to show, what reviewers answered, and the random audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, and_, func, select, text

from jobs.database.images import RandomPlace, select_random_images
from jobs.database.records import read_record, read_records
from jobs.database.tables import image_tags, images, labels

ReviewReason = Literal["low_confidence", "images_disagree", "label_error", "drifted_category", "audit"]
"""Why the queue shows an image."""
AnswerReason = Literal[ReviewReason, "correction"]
"""Why a person answered for an image. A correction is made outside the queue, where the tag is seen."""


def find_unsure(connection: Connection, classifier_version_id: int, below: float, limit: int) -> Sequence[int]:
    """Return unlabeled images whose tag has low confidence, least confident first."""
    statement = text("""
        SELECT i.image_id
        FROM catalog.images i JOIN catalog.image_tags t ON t.image_id = i.image_id
        WHERE t.classifier_version_id = :version AND t.confidence < :below AND i.deleted_at IS NULL
          AND NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = i.image_id)
        ORDER BY t.confidence, t.image_id LIMIT :limit
    """)
    parameters = {"version": classifier_version_id, "below": below, "limit": limit}
    return connection.execute(statement, parameters).scalars().all()


def find_disagreeing(connection: Connection, classifier_version_id: int, limit: int) -> Sequence[int]:
    """Return images whose tag differs from that of their product. A product with a label counts as settled."""
    statement = text("""
        SELECT i.image_id
        FROM catalog.product_tags d
        JOIN catalog.images i USING (product_id)
        JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id = :version
        WHERE d.classifier_version_id = :version AND d.images_disagree AND t.category <> d.category
          AND i.deleted_at IS NULL
          AND NOT EXISTS (
              SELECT FROM catalog.images o JOIN catalog.labels l USING (image_id) WHERE o.product_id = d.product_id
          )
        ORDER BY d.product_id, i.image_id LIMIT :limit
    """)
    return connection.execute(statement, {"version": classifier_version_id, "limit": limit}).scalars().all()


def find_doubtful_labels(
    connection: Connection, classifier_version_id: int, confidence: float, labels_checked: int, limit: int
) -> Sequence[int]:
    """Return images whose label is contradicted by a confident tag, most confident first.

    Only the latest labels are checked. Images that were already reviewed for this classifier are left out.
    """
    statement = text("""
        WITH contradicted AS MATERIALIZED (
            SELECT l.label_id, l.image_id, t.confidence
            FROM (SELECT * FROM catalog.labels ORDER BY label_id DESC LIMIT :labels) l
            JOIN catalog.image_tags t ON t.image_id = l.image_id AND t.classifier_version_id = :version
            WHERE t.category <> l.category AND t.confidence >= :confidence
              AND l.category = ANY (CAST((SELECT categories FROM catalog.model_versions
                                          WHERE model_version_id = :version) AS text[]))
        )
        SELECT c.image_id
        FROM contradicted c CROSS JOIN LATERAL (SELECT * FROM catalog.images WHERE image_id = c.image_id OFFSET 0) i
        WHERE i.deleted_at IS NULL
          AND NOT EXISTS (SELECT FROM catalog.labels n WHERE n.image_id = c.image_id AND n.label_id > c.label_id)
          AND NOT EXISTS (SELECT FROM catalog.reviews r WHERE r.image_id = c.image_id
                          AND r.classifier_version_id = :version AND r.undone_at IS NULL)
        ORDER BY c.confidence DESC, c.image_id LIMIT :limit
    """)
    parameters = {
        "version": classifier_version_id,
        "confidence": confidence,
        "labels": labels_checked,
        "limit": limit,
    }
    return connection.execute(statement, parameters).scalars().all()


def find_of_categories(
    connection: Connection, classifier_version_id: int, categories: Sequence[str], limit: int
) -> Sequence[int]:
    """Return unlabeled images that are tagged with one of these categories, newest first."""
    statement = text("""
        SELECT found.image_id
        FROM unnest(CAST(:categories AS text[])) AS wanted (category)
        CROSS JOIN LATERAL (
            SELECT i.image_id
            FROM catalog.images i JOIN catalog.image_tags t ON t.image_id = i.image_id
            WHERE t.classifier_version_id = :version AND t.category = wanted.category AND i.deleted_at IS NULL
              AND NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = i.image_id)
            ORDER BY t.image_id DESC LIMIT :limit
        ) found
        ORDER BY found.image_id DESC LIMIT :limit
    """)
    parameters = {"version": classifier_version_id, "categories": list(categories), "limit": limit}
    return connection.execute(statement, parameters).scalars().all()


def _join_tags(classifier_version_id: int) -> Any:
    is_own = and_(
        image_tags.c.image_id == images.c.image_id, image_tags.c.classifier_version_id == classifier_version_id
    )
    return images.join(image_tags, is_own)


def draw_audit(connection: Connection, classifier_version_id: int, limit: int) -> Sequence[int]:
    """Return the next unlabeled images in the random audit of a classifier."""
    has_label = select(labels.c.label_id).where(labels.c.image_id == images.c.image_id).exists()
    drawn = select_random_images(
        classifier_version_id,
        limit,
        images.c.image_id,
        source=_join_tags(classifier_version_id),
        where=~has_label,
    ).subquery()
    return connection.execute(select(drawn.c.image_id).order_by(drawn.c.segment, drawn.c.place)).scalars().all()


@dataclass(frozen=True)
class ReviewItem:
    """An image to review. ``label`` is its latest label, or None if it has none."""

    image_id: int
    product_id: str
    display_name: str | None
    reason: ReviewReason
    category: str
    confidence: float
    top_3: list[dict[str, Any]]
    label: str | None


def read_review_items(
    connection: Connection, classifier_version_id: int, reasons: dict[int, ReviewReason], size: int
) -> tuple[ReviewItem, ...]:
    """Return the first ``size`` review items of the images in ``reasons``, in their order.

    Images that were answered or deleted since the queue was found are left out.
    """
    rows = connection.execute(
        text("""
            SELECT i.image_id, i.product_id, p.display_name, shown.reason, t.category, t.confidence,
                   CASE t.top_3 WHEN '[]' THEN jsonb_build_array(
                       jsonb_build_object('category', t.category, 'confidence', t.confidence)
                   ) ELSE t.top_3 END AS top_3,
                   (SELECT l.category FROM catalog.labels l WHERE l.image_id = i.image_id
                    ORDER BY l.label_id DESC LIMIT 1) AS label
            FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[]))
                WITH ORDINALITY AS shown (image_id, reason, place)
            JOIN catalog.images i USING (image_id)
            JOIN catalog.products p USING (product_id)
            JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id = :version
            WHERE i.deleted_at IS NULL
              AND NOT EXISTS (SELECT FROM catalog.reviews r WHERE r.image_id = i.image_id
                              AND r.classifier_version_id = :version AND r.undone_at IS NULL)
              AND (shown.reason = 'label_error'
                   OR NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = i.image_id))
              AND (shown.reason <> 'images_disagree' OR NOT EXISTS (
                  SELECT FROM catalog.images o JOIN catalog.labels l USING (image_id) WHERE o.product_id = i.product_id
              ))
            ORDER BY shown.place LIMIT :size
        """),
        {"ids": list(reasons), "reasons": list(reasons.values()), "version": classifier_version_id, "size": size},
    )
    return tuple(read_records(rows, ReviewItem))


@dataclass(frozen=True)
class Answer:
    """An answer to a review: a category or `NOT_CLOTHING`, and the reason why the image was shown."""

    image_id: int
    reason: AnswerReason
    answer: str


@dataclass(frozen=True)
class PastAnswer:
    """A stored answer, and the classifier's tag at that time."""

    review_id: int
    image_id: int
    product_id: str
    display_name: str | None
    reason: AnswerReason
    answer: str
    model_category: str
    reviewed_at: datetime
    is_undone: bool


def lock_image_review(connection: Connection, image_id: int) -> None:
    """Block other reviews of an image until the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('review', :image))"), {"image": image_id})


@dataclass(frozen=True)
class OthersAnswer:
    """The answer of another reviewer."""

    answer: str
    reviewed_by: str


def find_others_answer(
    connection: Connection, classifier_version_id: int, image_id: int, person: str
) -> OthersAnswer | None:
    """Return the latest answer for an image by somebody other than ``person``, or None."""
    statement = text("""
        SELECT answer, reviewed_by FROM catalog.reviews
        WHERE image_id = :image AND classifier_version_id = :version AND undone_at IS NULL AND reviewed_by <> :person
        ORDER BY review_id DESC LIMIT 1
    """)
    parameters = {"image": image_id, "version": classifier_version_id, "person": person}
    return read_record(connection.execute(statement, parameters), OthersAnswer)


def insert_review(connection: Connection, classifier_version_id: int, answer: Answer, reviewed_by: str) -> int | None:
    """Store an answer and its label. Return the review's id, or None if the bucket has no such image with a tag."""
    statement = text("""
        WITH tag AS (
            SELECT t.image_id, t.category, t.confidence
            FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
            WHERE t.image_id = :image_id AND t.classifier_version_id = :version AND i.deleted_at IS NULL
        ), label AS (
            INSERT INTO catalog.labels (image_id, category, labeled_by)
            SELECT image_id, :answer, :person FROM tag RETURNING label_id
        )
        INSERT INTO catalog.reviews (image_id, classifier_version_id, model_category, confidence, reason, answer,
                                     label_id, reviewed_by)
        SELECT tag.image_id, :version, tag.category, tag.confidence, :reason, :answer, label.label_id, :person
        FROM tag CROSS JOIN label
        RETURNING review_id
    """)
    parameters = {**vars(answer), "version": classifier_version_id, "person": reviewed_by}
    return connection.execute(statement, parameters).scalar_one_or_none()


@dataclass(frozen=True)
class StoredReview:
    """A review to undo. ``overruled_by`` is the person who labeled the image afterwards, or None."""

    image_id: int
    undone_by: str | None
    overruled_by: str | None


def lock_review(connection: Connection, review_id: int) -> StoredReview | None:
    """Return a review and lock it until the transaction ends. Return None if it does not exist."""
    statement = text("""
        SELECT r.image_id, r.undone_by,
               (SELECT l.labeled_by FROM catalog.labels l WHERE l.image_id = r.image_id AND l.label_id > r.label_id
                ORDER BY l.label_id DESC LIMIT 1) AS overruled_by
        FROM catalog.reviews r WHERE r.review_id = :id FOR UPDATE OF r
    """)
    return read_record(connection.execute(statement, {"id": review_id}), StoredReview)


def undo_review(connection: Connection, review_id: int, undone_by: str) -> None:
    """Mark a review as undone and delete its label."""
    connection.execute(
        text("UPDATE catalog.reviews SET undone_by = :person, undone_at = now() WHERE review_id = :id"),
        {"person": undone_by, "id": review_id},
    )
    connection.execute(
        text("""
            DELETE FROM catalog.labels
            WHERE label_id = (SELECT label_id FROM catalog.reviews WHERE review_id = :id)
        """),
        {"id": review_id},
    )


def read_past_answers(connection: Connection, reviewed_by: str, size: int) -> tuple[PastAnswer, ...]:
    """Return the latest answers of a person, newest first."""
    rows = connection.execute(
        text("""
            SELECT r.*, i.product_id, p.display_name, r.undone_at IS NOT NULL AS is_undone
            FROM catalog.reviews r JOIN catalog.images i USING (image_id) JOIN catalog.products p USING (product_id)
            WHERE r.reviewed_by = :person ORDER BY r.review_id DESC LIMIT :size
        """),
        {"person": reviewed_by, "size": size},
    )
    return tuple(read_records(rows, PastAnswer))


def count_audit_reviews(connection: Connection, classifier_version_id: int) -> int:
    """Count the answers to the random audit of a classifier."""
    statement = text("""
        SELECT count(*) FROM catalog.reviews
        WHERE classifier_version_id = :version AND reason = 'audit' AND undone_at IS NULL
    """)
    answered: int = connection.execute(statement, {"version": classifier_version_id}).scalar_one()
    return answered


@dataclass(frozen=True)
class AuditCounts:
    """Numbers of audited images: with a label (``answered``), with a tag equal to it, and without a label."""

    answered: int
    correct: int
    skipped: int


def count_audit(connection: Connection, classifier_version_id: int, limit: int) -> AuditCounts:
    """Compare tags with labels for the first images of the audit, up to the last one that was reviewed for it.

    Labels that were given for another reason count too. Without them, only the easy images of the sample would count.
    """
    last = read_record(
        connection.execute(
            text("""
                SELECT CAST(hashed.place < hashed.start AS integer) AS segment, hashed.place
                FROM catalog.reviews r
                CROSS JOIN LATERAL (
                    SELECT hashint8extended(r.image_id, 0) AS place,
                           hashint8extended(CAST(:version AS bigint), 1) AS start
                ) hashed
                WHERE classifier_version_id = :version AND reason = 'audit' AND undone_at IS NULL
                ORDER BY segment DESC, place DESC LIMIT 1
            """),
            {"version": classifier_version_id},
        ),
        RandomPlace,
    )
    if last is None:
        return AuditCounts(0, 0, 0)
    truth = (
        select(labels.c.category)
        .where(labels.c.image_id == images.c.image_id)
        .order_by(labels.c.label_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    drawn = select_random_images(
        classifier_version_id,
        limit,
        image_tags.c.category,
        truth.label("truth"),
        source=_join_tags(classifier_version_id),
        until=last,
    ).subquery()
    counts = select(
        func.count(drawn.c.truth).label("answered"),
        func.count().filter(drawn.c.truth == drawn.c.category).label("correct"),
        func.count().filter(drawn.c.truth.is_(None)).label("skipped"),
    )
    (counted,) = read_records(connection.execute(counts), AuditCounts)
    return counted
