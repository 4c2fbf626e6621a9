"""What the runs did: the latest side by side, and one of them whole."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from jobs.database.tagging_runs import RunTotals, read_totals

SAMPLE_SIZE = 24


@dataclass(frozen=True)
class RunSummary(RunTotals):
    """A run, and what it adds up to so far."""

    run_id: str
    purpose: str
    state: str
    started_at: datetime
    finished_at: datetime | None
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
    classifier_version_id: int | None
    encoder_version_id: int
    discovered: dict[str, int]
    entries_by_reason: dict[str, int]
    report: dict[str, Any] | None
    photos: RunPhotos


def list_runs(connection: Connection, size: int) -> tuple[RunSummary, ...]:
    """The latest runs, the last first."""
    rows = connection.execute(text(f"{RUNS} ORDER BY started_at DESC LIMIT :size"), {"size": size}).all()
    return tuple(_summarise(connection, row) for row in rows)


def read_run_details(connection: Connection, run_id: str) -> RunDetails | None:
    """One run, or None if it was never planned."""
    row = connection.execute(text(f"{RUNS} WHERE run_id = :run"), {"run": run_id}).one_or_none()
    if row is None:
        return None
    run = connection.execute(
        text("""
            SELECT source_uri, classifier_version_id, encoder_version_id, discovered, entries_by_reason, report
            FROM catalog.tagging_runs WHERE run_id = :run
        """),
        {"run": run_id},
    ).one()
    summary = _summarise(connection, row)
    return RunDetails(summary, **run._mapping, photos=_read_photos(connection, summary, run.classifier_version_id))


def _summarise(connection: Connection, run: Row[Any]) -> RunSummary:
    totals = read_totals(connection, run.run_id)
    return RunSummary(**{**vars(totals), **run._mapping})


def _read_photos(connection: Connection, run: RunSummary, classifier_version_id: int | None) -> RunPhotos:
    parameters = {
        "run": run.run_id,
        "version": classifier_version_id,
        "started": run.started_at,
        "finished": run.finished_at,
        "size": SAMPLE_SIZE,
    }
    return RunPhotos(
        tuple(connection.execute(text(TAGGED_SAMPLE), parameters).scalars()),
        tuple(connection.execute(text(FAILED_SAMPLE), parameters).scalars()),
    )


RUNS = """
    SELECT run_id, purpose, state, started_at, finished_at,
           extract(epoch FROM coalesce(finished_at, now()) - started_at)::float AS duration_seconds,
           coalesce((report -> 'drift' -> 'is_flagged')::boolean, false) AS has_drifted,
           report -> 'drift' ->> 'sentence' AS drift_sentence
    FROM catalog.tagging_runs
"""
TAGGED_SAMPLE = """
    SELECT image_id FROM catalog.image_tags
    WHERE classifier_version_id = :version
      AND tagged_at BETWEEN :started AND coalesce(CAST(:finished AS timestamptz), now())
    ORDER BY tagged_at DESC, image_id DESC LIMIT :size
"""
FAILED_SAMPLE = """
    SELECT f.image_id FROM catalog.item_failures f JOIN catalog.images i USING (image_id)
    WHERE f.run_id = :run AND f.resolved_at IS NULL AND i.deleted_at IS NULL ORDER BY f.image_id DESC LIMIT :size
"""
