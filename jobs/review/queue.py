"""Choose the images to review: those where a label helps most, and a random sample to measure accuracy."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from sqlalchemy import Connection

from jobs.database.drift_references import count_run_predictions, read_drift_reference
from jobs.database.model_versions import read_live_versions
from jobs.database.reviews import (
    ReviewItem,
    ReviewReason,
    count_audit_reviews,
    draw_audit,
    find_disagreeing,
    find_doubtful_labels,
    find_of_categories,
    find_unsure,
    read_review_items,
)
from jobs.database.tagging_runs import find_latest_run
from jobs.ingest.drift import rank_shifted_categories
from jobs.settings import RunSettings

REASONS: tuple[ReviewReason, ...] = ("low_confidence", "images_disagree", "audit", "label_error", "drifted_category")
MAX_DRIFTED = 3
MIN_SHIFT = 0.02
"""Minimum contribution of a category to the stability index. A total of 0.1 is a small shift, 0.25 a large one."""
UNSURE_BELOW = 0.7
"""Below this confidence, at least three in ten tags of a calibrated classifier are wrong."""
SURE_FROM = 0.8
"""A calibrated classifier that contradicts a label with this confidence is more often right than the label."""
LABELS_CHECKED = 10_000
"""Only this many of the latest labels are checked, to limit the query time."""
AUDIT_TARGET = 200
"""Random answers needed to estimate the accuracy to within seven points at worst (Wilson's 95 % interval)."""
MAX_COUNTED = 1_000
"""Maximum number of images to find per reason."""
SPARE_IMAGES = 200
"""Images looked up in addition to those shown, in place of those that were answered since the queue was found."""


@dataclass(frozen=True)
class ReviewQueue:
    """The images to review for the live classifier, by reason, in the order in which they are shown."""

    classifier_version_id: int | None
    by_reason: dict[ReviewReason, Sequence[int]]
    answered: frozenset[int] = frozenset()
    """Images that were answered since the queue was found. They keep their places, so the order of the others stays."""

    def list_waiting(self, reason: ReviewReason) -> list[int]:
        """Return the images that wait for one reason."""
        return [image_id for image_id in self.by_reason[reason] if image_id not in self.answered]


@dataclass(frozen=True)
class Backlog:
    """The number of images to review for one reason. `MAX_COUNTED` means that there may be more."""

    reason: ReviewReason
    images: int


def find_review_queue(connection: Connection, drift: RunSettings) -> ReviewQueue:
    """Find up to `MAX_COUNTED` images for each reason, or none if no classifier is live."""
    version = read_live_versions(connection).classifier
    if version is None:
        return ReviewQueue(None, {})
    drifted = find_drifted_categories(connection, version, drift)
    by_reason: dict[ReviewReason, Sequence[int]] = {
        "low_confidence": find_unsure(connection, version, UNSURE_BELOW, MAX_COUNTED),
        "images_disagree": find_disagreeing(connection, version, MAX_COUNTED),
        "audit": draw_audit(connection, version, MAX_COUNTED),
        "label_error": find_doubtful_labels(connection, version, SURE_FROM, LABELS_CHECKED, MAX_COUNTED),
        "drifted_category": find_of_categories(connection, version, drifted, MAX_COUNTED),
    }
    return ReviewQueue(version, by_reason)


def find_drifted_categories(connection: Connection, classifier_version_id: int, settings: RunSettings) -> list[str]:
    """Return up to three categories, the most shifted first, or none if the last run is too small to measure drift."""
    reference = read_drift_reference(connection, classifier_version_id)
    run_id = find_latest_run(connection, classifier_version_id)
    if reference is None or run_id is None:
        return []
    seen = count_run_predictions(connection, run_id)
    if sum(seen.confidence_counts) < settings.drift_min_images:
        return []
    shifted = rank_shifted_categories(reference, seen)
    return [category for category, shift in shifted[:MAX_DRIFTED] if shift >= MIN_SHIFT]


def read_review_queue(
    connection: Connection,
    queue: ReviewQueue,
    reason: ReviewReason | None,
    size: int,
    hidden: Collection[int] = (),
) -> tuple[ReviewItem, ...]:
    """Return the next images to show, for one reason or for all in turn, without the hidden ones and none twice."""
    if queue.classifier_version_id is None:
        return ()
    by_reason = [[(image_id, each) for image_id in queue.by_reason[each]] for each in ([reason] if reason else REASONS)]
    mixed: dict[int, ReviewReason] = {}
    for image_id, each in (pair for pair in chain.from_iterable(zip_longest(*by_reason)) if pair):
        mixed.setdefault(image_id, each)
    shown = (item for item in mixed.items() if item[0] not in queue.answered and item[0] not in hidden)
    first = dict(islice(shown, size + SPARE_IMAGES))
    return read_review_items(connection, queue.classifier_version_id, first, size)


def read_backlog(connection: Connection, queue: ReviewQueue) -> tuple[Backlog, ...]:
    """Count the images to review, by reason. For the audit, count the reviews still needed to reach `AUDIT_TARGET`."""
    if queue.classifier_version_id is None:
        return ()
    missing = max(AUDIT_TARGET - count_audit_reviews(connection, queue.classifier_version_id), 0)
    counts = {reason: len(queue.list_waiting(reason)) for reason in queue.by_reason}
    return tuple(
        Backlog(reason, min(count, missing) if reason == "audit" else count) for reason, count in counts.items()
    )


def count_waiting(queue: ReviewQueue, backlog: Sequence[Backlog], reason: ReviewReason | None) -> int:
    """Count the images that wait for one reason, or for any. An image that waits for two reasons counts once."""
    waiting = {one.reason: queue.list_waiting(one.reason)[: one.images] for one in backlog}
    return (
        len(waiting.get(reason, ())) if reason else len({image_id for found in waiting.values() for image_id in found})
    )
