"""What the runs did: the latest side by side, and one of them whole."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

SAMPLE_SIZE = 24


@dataclass(frozen=True)
class RunSummary:
    """A run so far; stage seconds are summed over parallel workers, ``waiting_seconds`` are by resource.

    The counts of categories and of confidences (ten bins of equal width) are of what the classifier answered itself.
    """

    run_id: str
    purpose: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float
    planned_entries: int
    entries: int
    tagged: int
    reused: int
    failed: int
    images_per_second: float | None
    read_seconds: float
    decode_seconds: float
    predict_seconds: float
    write_seconds: float
    waiting_seconds: dict[str, float]
    category_counts: dict[str, int]
    confidence_counts: list[int]
    failure_reasons: dict[str, int]
    has_drifted: bool
    drift_sentence: str | None


@dataclass(frozen=True)
class RunPhotos:
    """A sample of what a run tagged, and of what failed in it last."""

    tagged: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass(frozen=True)
class RunDetails:
    """One run; ``report`` is None until it was finished."""

    summary: RunSummary
    source_uri: str
    classifier_version_id: int
    encoder_version_id: int
    discovered: dict[str, int]
    entries_by_reason: dict[str, int]
    report: dict[str, Any] | None
    photos: RunPhotos


def list_runs(connection: Connection, size: int) -> tuple[RunSummary, ...]:
    """The latest runs, the last first."""
    return tuple(RunSummary(**row._mapping) for row in connection.execute(text(LATEST), {"size": size}))


def read_run_details(connection: Connection, run_id: str) -> RunDetails | None:
    """One run, or None if it was never planned."""
    summary = connection.execute(text(ONE), {"run": run_id}).one_or_none()
    if summary is None:
        return None
    run = connection.execute(
        text("""
            SELECT source_uri, classifier_version_id, encoder_version_id, discovered, entries_by_reason, report
            FROM catalog.tagging_runs WHERE run_id = :run
        """),
        {"run": run_id},
    ).one()
    return RunDetails(RunSummary(**summary._mapping), **run._mapping, photos=_read_photos(connection, run_id))


def _read_photos(connection: Connection, run_id: str) -> RunPhotos:
    parameters = {"run": run_id, "size": SAMPLE_SIZE}
    return RunPhotos(
        tuple(connection.execute(text(TAGGED_SAMPLE), parameters).scalars()),
        tuple(connection.execute(text(FAILED_SAMPLE), parameters).scalars()),
    )


SUMMARY = """
    SELECT r.run_id, r.purpose, r.state, r.started_at, r.finished_at,
           extract(epoch FROM coalesce(r.finished_at, now()) - r.started_at)::float AS duration_seconds,
           r.entries AS planned_entries, c.*,
           w.waiting_seconds, k.category_counts, b.confidence_counts, f.failure_reasons,
           coalesce((r.report -> 'drift' -> 'is_flagged')::boolean, false) AS has_drifted,
           r.report -> 'drift' ->> 'sentence' AS drift_sentence
    FROM wanted r
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(entries), 0)::integer AS entries, coalesce(sum(tagged), 0)::integer AS tagged,
               coalesce(sum(reused), 0)::integer AS reused, coalesce(sum(failed), 0)::integer AS failed,
               (sum(entries) / nullif(extract(epoch FROM max(committed_at)
                   - min(committed_at - wall_seconds * interval '1 second')), 0))::float AS images_per_second,
               coalesce(sum(read_seconds), 0) AS read_seconds, coalesce(sum(decode_seconds), 0) AS decode_seconds,
               coalesce(sum(predict_seconds), 0) AS predict_seconds, coalesce(sum(write_seconds), 0) AS write_seconds
        FROM catalog.run_chunks WHERE run_id = r.run_id
    ) c
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(resource, seconds), '{}') AS waiting_seconds
        FROM (SELECT resource, sum(seconds::float) AS seconds
              FROM catalog.run_chunks, jsonb_each_text(waiting_seconds) AS e (resource, seconds)
              WHERE run_id = r.run_id GROUP BY resource) summed
    ) w
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(category, images), '{}') AS category_counts
        FROM (SELECT category, sum(images::integer) AS images
              FROM catalog.run_chunks, jsonb_each_text(category_counts) AS e (category, images)
              WHERE run_id = r.run_id GROUP BY category) summed
    ) k
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(images ORDER BY bin), '[]') AS confidence_counts
        FROM (SELECT bin, sum(images::integer) AS images
              FROM catalog.run_chunks,
                   jsonb_array_elements_text(confidence_counts) WITH ORDINALITY AS e (images, bin)
              WHERE run_id = r.run_id GROUP BY bin) summed
    ) b
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(reason, images), '{}') AS failure_reasons
        FROM (SELECT reason, sum(images::integer) AS images
              FROM catalog.run_chunks, jsonb_each_text(failure_reasons) AS e (reason, images)
              WHERE run_id = r.run_id GROUP BY reason) summed
    ) f
"""
LATEST = f"""
    WITH wanted AS (SELECT * FROM catalog.tagging_runs ORDER BY started_at DESC LIMIT :size)
    {SUMMARY} ORDER BY r.started_at DESC
"""
ONE = f"WITH wanted AS (SELECT * FROM catalog.tagging_runs WHERE run_id = :run) {SUMMARY}"

TAGGED_SAMPLE = """
    SELECT t.image_id FROM catalog.tagging_runs r JOIN catalog.image_tags t USING (classifier_version_id)
    WHERE r.run_id = :run AND t.tagged_at BETWEEN r.started_at AND coalesce(r.finished_at, now())
    ORDER BY t.tagged_at DESC, t.image_id LIMIT :size
"""
FAILED_SAMPLE = """
    SELECT f.image_id FROM catalog.item_failures f JOIN catalog.images i USING (image_id)
    WHERE f.run_id = :run AND f.resolved_at IS NULL AND i.deleted_at IS NULL ORDER BY f.image_id DESC LIMIT :size
"""
