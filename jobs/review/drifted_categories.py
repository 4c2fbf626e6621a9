"""Which categories the last run found more or less often than the live classifier was accepted with."""

from sqlalchemy import Connection, text

from jobs.database.drift_references import count_run_answers, read_drift_reference
from jobs.tagging.drift import DriftSettings, rank_shifted_categories

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
