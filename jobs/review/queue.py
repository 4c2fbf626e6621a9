"""Choose the photos to review: those where a person's label helps most, and a random sample to measure accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.database.drift_references import count_run_answers, read_drift_reference
from jobs.database.images import select_random_images
from jobs.ingest.drift import DriftSettings, rank_shifted_categories

MOST_CATEGORIES = 3
LEAST_SHIFT = 0.02
"""Of the stability index, of which 0.1 is little and 0.25 much for all categories together."""


def find_drifted_categories(connection: Connection, classifier_version_id: int, settings: DriftSettings) -> list[str]:
    """Up to three, the most shifted first; none where the last run is too small to tell."""
    reference = read_drift_reference(connection, classifier_version_id)
    if reference is None:
        return []
    run_id = connection.execute(
        text("""
            SELECT run_id FROM catalog.tagging_runs
            WHERE classifier_version_id = :version AND finished_at IS NOT NULL ORDER BY started_at DESC LIMIT 1
        """),
        {"version": classifier_version_id},
    ).scalar_one_or_none()
    if run_id is None:
        return []
    seen = count_run_answers(connection, run_id)
    if sum(seen.confidence_counts) < settings.min_images:
        return []
    shifted = rank_shifted_categories(reference, seen)
    return [category for category, shift in shifted[:MOST_CATEGORIES] if shift >= LEAST_SHIFT]


Reason = Literal["low_confidence", "photos_disagree", "label_error", "drifted_class", "audit"]
REASONS: tuple[Reason, ...] = ("low_confidence", "photos_disagree", "audit", "label_error", "drifted_class")

UNSURE_BELOW = 0.7
"""A calibrated classifier is wrong in at least three of ten such answers."""
SURE_FROM = 0.8
"""A calibrated classifier that contradicts a label like this is right more often than such labels are."""
LABELS_CHECKED = 10_000
"""The latest of them, so that the time is bounded."""
AUDIT_TARGET = 200
"""Random answers that tell the accuracy to within seven points at worst (Wilson's interval at 95 %)."""
MOST_COUNTED = 1_000
"""Of the photos that wait for one reason."""


@dataclass(frozen=True)
class Guess:
    """A category, and the classifier's confidence in it from 0 to 1."""

    category: str
    confidence: float


@dataclass(frozen=True)
class ReviewItem:
    """A photo to be looked at; ``label`` is what a person has said of it, where that is in doubt."""

    image_id: int
    product_id: str
    display_name: str | None
    reason: Reason
    category: str
    confidence: float
    top_3: tuple[Guess, ...]
    label: str | None


@dataclass(frozen=True)
class WaitingPhotos:
    """Those of each reason in the order in which they are asked, for the live classifier."""

    classifier_version_id: int | None
    by_reason: dict[Reason, Sequence[int]]


@dataclass(frozen=True)
class Backlog:
    """How many photos wait for one reason; `MOST_COUNTED` may be more."""

    reason: Reason
    images: int


def find_waiting(connection: Connection, drift: DriftSettings) -> WaitingPhotos:
    """Up to `MOST_COUNTED` of each reason; none while no classifier is live."""
    version = read_live_classifier(connection)
    if version is None:
        return WaitingPhotos(None, {})
    by_reason = {reason: _find_images(connection, reason, version, drift) for reason in REASONS}
    return WaitingPhotos(version, by_reason)


def read_review_queue(
    connection: Connection, waiting: WaitingPhotos, reason: Reason | None, size: int
) -> tuple[ReviewItem, ...]:
    """What to ask about next, of one reason or of all in turn."""
    if waiting.classifier_version_id is None:
        return ()
    by_reason = [
        [(image_id, each) for image_id in waiting.by_reason[each]] for each in ([reason] if reason else REASONS)
    ]
    mixed: dict[int, Reason] = {}
    for image_id, each in (pair for pair in chain.from_iterable(zip_longest(*by_reason)) if pair):
        mixed.setdefault(image_id, each)
    return _describe(connection, waiting.classifier_version_id, dict(islice(mixed.items(), size)))


def read_backlog(connection: Connection, waiting: WaitingPhotos) -> tuple[Backlog, ...]:
    """How many photos wait, by reason; of the audit those that its sample lacks."""
    answered = connection.execute(
        text("""
            SELECT count(*) FROM catalog.reviews
            WHERE classifier_version_id = :version AND reason = 'audit' AND undone_at IS NULL
        """),
        {"version": waiting.classifier_version_id},
    ).scalar_one()
    lacking = max(AUDIT_TARGET - answered, 0)
    return tuple(
        Backlog(reason, min(len(images), lacking) if reason == "audit" else len(images))
        for reason, images in waiting.by_reason.items()
    )


def read_live_classifier(connection: Connection) -> int | None:
    """The version whose answers are reviewed."""
    statement = text("SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'")
    version: int | None = connection.execute(statement).scalar_one_or_none()
    return version


TAGGED = "JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id = :version"
UNANSWERED = "i.deleted_at IS NULL AND NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = i.image_id)"
FINDERS: dict[Reason, str] = {
    "low_confidence": f"""
        SELECT i.image_id FROM catalog.images i {TAGGED}
        WHERE t.confidence < :unsure AND {UNANSWERED}
        ORDER BY t.confidence, t.image_id LIMIT :limit
    """,
    # An answer about one photo settles its product.
    "photos_disagree": f"""
        SELECT i.image_id
        FROM catalog.product_tags d JOIN catalog.images i USING (product_id) {TAGGED}
        WHERE d.classifier_version_id = :version AND d.photos_disagree AND t.category <> d.category AND {UNANSWERED}
          AND NOT EXISTS (
              SELECT FROM catalog.images o JOIN catalog.labels l USING (image_id) WHERE o.product_id = d.product_id
          )
        ORDER BY d.product_id, i.image_id LIMIT :limit
    """,
    # What the same classifier contradicted before, and a person confirmed, is not asked again.
    "label_error": """
        WITH contradicted AS MATERIALIZED (
            SELECT l.label_id, l.image_id, t.confidence
            FROM (SELECT * FROM catalog.labels ORDER BY label_id DESC LIMIT :labels) l
            JOIN catalog.image_tags t ON t.image_id = l.image_id AND t.classifier_version_id = :version
            WHERE t.category <> l.category AND t.confidence >= :sure
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
    """,
    # The latest, since it is what came last that has drifted.
    "drifted_class": f"""
        SELECT found.image_id
        FROM unnest(CAST(:drifted AS text[])) AS drifted (name)
        CROSS JOIN LATERAL (
            SELECT i.image_id FROM catalog.images i {TAGGED}
            WHERE t.category = drifted.name AND {UNANSWERED} ORDER BY t.image_id DESC LIMIT :limit
        ) found
        ORDER BY found.image_id DESC LIMIT :limit
    """,
    "audit": f"""
        SELECT image_id FROM ({select_random_images("i.image_id", TAGGED, UNANSWERED)}) i ORDER BY segment, place
    """,
}


def _find_images(
    connection: Connection, reason: Reason, classifier_version_id: int, drift: DriftSettings
) -> Sequence[int]:
    parameters: dict[str, Any] = {"version": classifier_version_id, "limit": MOST_COUNTED}
    if reason == "low_confidence":
        parameters["unsure"] = UNSURE_BELOW
    elif reason == "label_error":
        parameters |= {"sure": SURE_FROM, "labels": LABELS_CHECKED}
    elif reason == "drifted_class":
        parameters["drifted"] = find_drifted_categories(connection, classifier_version_id, drift)
    return connection.execute(text(FINDERS[reason]), parameters).scalars().all()


def _describe(connection: Connection, classifier_version_id: int, reasons: dict[int, Reason]) -> tuple[ReviewItem, ...]:
    rows = connection.execute(
        text(f"""
            SELECT i.image_id, i.product_id, p.display_name, t.category, t.confidence, t.top_3,
                   (SELECT l.category FROM catalog.labels l WHERE l.image_id = i.image_id
                    ORDER BY l.label_id DESC LIMIT 1) AS label
            FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS asked (image_id, place)
            JOIN catalog.images i USING (image_id) JOIN catalog.products p USING (product_id) {TAGGED}
            ORDER BY asked.place
        """),
        {"ids": list(reasons), "version": classifier_version_id},
    )
    return tuple(
        ReviewItem(
            image_id=row.image_id,
            product_id=row.product_id,
            display_name=row.display_name,
            reason=reasons[row.image_id],
            category=row.category,
            confidence=row.confidence,
            top_3=tuple(Guess(**guess) for guess in row.top_3) or (Guess(row.category, row.confidence),),
            label=row.label,
        )
        for row in rows
    )
