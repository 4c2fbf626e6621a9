"""Queries on ``drift_references``: the distribution of a classifier's tags that later runs are compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.database.records import read_record, text_with_json
from jobs.database.run_history import read_totals

MeasuredOn = Literal["test", "catalog"]
CONFIDENCE_BINS = 10


@dataclass(frozen=True)
class DriftReference:
    """Numbers of images by category and by confidence, the latter in ten bins of equal width from 0 to 1."""

    category_counts: dict[str, int]
    confidence_counts: list[int]


def upsert_drift_reference(
    connection: Connection, classifier_version_id: int, reference: DriftReference, measured_on: MeasuredOn
) -> None:
    """Store the reference of a classifier. Test images never replace a reference measured on the catalog."""
    statement = """
        INSERT INTO catalog.drift_references AS r
            (classifier_version_id, category_counts, confidence_counts, measured_on)
        VALUES (:version, :category_counts, :confidence_counts, :measured_on)
        ON CONFLICT (classifier_version_id) DO UPDATE
        SET category_counts = excluded.category_counts, confidence_counts = excluded.confidence_counts,
            measured_on = excluded.measured_on, measured_at = now()
        WHERE excluded.measured_on = 'catalog' OR r.measured_on = 'test'
    """
    connection.execute(
        text_with_json(statement, "category_counts", "confidence_counts"),
        {**vars(reference), "version": classifier_version_id, "measured_on": measured_on},
    )


def read_drift_reference(connection: Connection, classifier_version_id: int) -> DriftReference | None:
    """Return the reference of a classifier, or None if it was never measured."""
    statement = text("""
        SELECT category_counts, confidence_counts FROM catalog.drift_references WHERE classifier_version_id = :version
    """)
    return read_record(connection.execute(statement, {"version": classifier_version_id}), DriftReference)


def settle_drift_reference(connection: Connection, classifier_version_id: int) -> None:
    """Replace a reference measured on test images with one measured on the catalog.

    Labeled images rarely have the same mix of categories as the catalog. Without this, a classifier that went live
    without a retag, such as the first one, would be reported as drifting every night.
    """
    statement = text("SELECT measured_on FROM catalog.drift_references WHERE classifier_version_id = :version")
    if connection.execute(statement, {"version": classifier_version_id}).scalar_one_or_none() == "test":
        catalog = count_catalog_predictions(connection, classifier_version_id)
        upsert_drift_reference(connection, classifier_version_id, catalog, "catalog")


def count_run_predictions(connection: Connection, run_id: str) -> DriftReference:
    """Count the tags of a run from its ledger, except copied ones."""
    totals = read_totals(connection, run_id)
    return _make_reference(totals.category_counts.items(), enumerate(totals.confidence_counts, start=1))


def count_catalog_predictions(connection: Connection, classifier_version_id: int) -> DriftReference:
    """Count a classifier's tags of all images in the bucket, including tags that labels override."""
    by_category = text("""
        SELECT category, count(*)
        FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY category ORDER BY category
    """)
    by_confidence = text("""
        SELECT least(width_bucket(confidence, 0, 1, 10), 10) AS bin, count(*)
        FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY bin
    """)
    parameters = {"classifier": classifier_version_id}
    return _make_reference(connection.execute(by_category, parameters), connection.execute(by_confidence, parameters))


def _make_reference(categories: Iterable[Any], confidences: Iterable[Any]) -> DriftReference:
    """Make a reference from rows (category, images) and rows (bin number starting at 1, images)."""
    images_by_bin = {int(row[0]): int(row[1]) for row in confidences}
    return DriftReference(
        {row[0]: int(row[1]) for row in categories},
        [images_by_bin.get(number, 0) for number in range(1, CONFIDENCE_BINS + 1)],
    )
