"""Queries on what tagging runs did: sums over the chunks in their ledger, for reports and pages."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from jobs.database.records import read_records
from jobs.run_titles import title_run

SAMPLE_SIZE = 24


@dataclass(frozen=True)
class RunTotals:
    """The sums over all chunks of a run, and the size of its plan. See `ChunkCounts`.

    The totals are stored as JSON in ``tagging_runs.totals``, so a new field needs a default.
    """

    entries: int
    tagged: int
    reused: int
    failed: int
    failure_reasons: dict[str, int]
    read_seconds: float
    decode_seconds: float
    predict_seconds: float
    write_seconds: float
    wall_seconds: float
    waiting_seconds: dict[str, float]
    category_counts: dict[str, int]
    confidence_counts: list[int]
    images_per_second: float | None
    planned_entries: int
    duration_seconds: float


def sum_chunks(connection: Connection, run_id: str) -> RunTotals:
    """Add up the chunks in the ledger of a run."""
    by_name = _sum_by_name(connection, run_id)
    return replace(
        count_chunks(connection, run_id),
        failure_reasons=_to_counts(by_name["failure_reasons"]),
        waiting_seconds=dict(sorted(by_name["waiting_seconds"].items(), key=lambda wait: -wait[1])),
        category_counts=_to_counts(by_name["category_counts"]),
        confidence_counts=_sum_confidences(connection, run_id),
    )


def count_chunks(connection: Connection, run_id: str) -> RunTotals:
    """Add up the chunks without what they count by name, which takes most of the time for a run of many chunks."""
    row = connection.execute(
        text("""
            SELECT entries, tagged, reused, failed, read_seconds, decode_seconds, predict_seconds, write_seconds,
                   (SELECT coalesce(sum(wall_seconds), 0) FROM catalog.run_chunks WHERE run_id = :run) AS wall_seconds,
                   images_per_second, planned_entries,
                   extract(epoch FROM now() - started_at)::float AS duration_seconds
            FROM catalog.tagging_run_summary WHERE run_id = :run
        """),
        {"run": run_id},
    ).one()
    return RunTotals(**row._mapping, failure_reasons={}, waiting_seconds={}, category_counts={}, confidence_counts=[])


def _sum_by_name(connection: Connection, run_id: str) -> dict[str, dict[str, float]]:
    """Add up the ledger's JSON objects, by column and by name within the objects."""
    rows = connection.execute(
        text("""
            SELECT counted.column_name, one.name, sum(one.number::float) AS number
            FROM catalog.run_chunks c
            CROSS JOIN LATERAL (VALUES ('failure_reasons', c.failure_reasons), ('waiting_seconds', c.waiting_seconds),
                                       ('category_counts', c.category_counts)) AS counted (column_name, numbers)
            CROSS JOIN LATERAL jsonb_each_text(counted.numbers) AS one (name, number)
            WHERE c.run_id = :run GROUP BY counted.column_name, one.name ORDER BY one.name
        """),
        {"run": run_id},
    )
    sums: dict[str, dict[str, float]] = {"failure_reasons": {}, "waiting_seconds": {}, "category_counts": {}}
    for row in rows:
        sums[row.column_name][row.name] = row.number
    return sums


def _to_counts(sums: dict[str, float]) -> dict[str, int]:
    return {name: int(number) for name, number in sums.items()}


def _sum_confidences(connection: Connection, run_id: str) -> list[int]:
    rows = connection.execute(
        text("""
            SELECT sum(images::integer)
            FROM catalog.run_chunks, jsonb_array_elements_text(confidence_counts) WITH ORDINALITY AS c (images, bin)
            WHERE run_id = :run GROUP BY bin ORDER BY bin
        """),
        {"run": run_id},
    )
    return [int(images) for images in rows.scalars()]


def read_totals(connection: Connection, run_id: str) -> RunTotals:
    """Return the totals that were stored when the run finished, or add up the chunks committed so far."""
    statement = text("SELECT totals FROM catalog.tagging_runs WHERE run_id = :run")
    totals = connection.execute(statement, {"run": run_id}).scalar_one()
    return RunTotals(**totals) if totals else sum_chunks(connection, run_id)


@dataclass(frozen=True)
class EmbeddedCounts:
    """Numbers of vectors that were written before the space had an index, and that were added to an existing index."""

    without_index: int
    into_index: int


def count_embedded(connection: Connection, run_id: str) -> EmbeddedCounts:
    """Add up the ledgers of a run and of its parts, the runs whose ids start with its own and a slash."""
    statement = text("""
        SELECT coalesce(sum(embedded) FILTER (WHERE NOT has_index), 0)::integer AS without_index,
               coalesce(sum(embedded) FILTER (WHERE has_index), 0)::integer AS into_index
        FROM catalog.run_chunks WHERE run_id = :run OR starts_with(run_id, :run || '/')
    """)
    (counts,) = read_records(connection.execute(statement, {"run": run_id}), EmbeddedCounts)
    return counts


@dataclass(frozen=True)
class WorkCounts:
    """Numbers of images that were processed and of those that failed."""

    entries: int
    failed: int


def sum_run_and_parts(connection: Connection, run_id: str) -> WorkCounts:
    """Add up the ledgers of a run and of its parts, the runs whose ids start with its own and a slash."""
    statement = text("""
        SELECT coalesce(sum(entries), 0)::integer AS entries, coalesce(sum(failed), 0)::integer AS failed
        FROM catalog.run_chunks WHERE run_id = :run OR starts_with(run_id, :run || '/')
    """)
    (counts,) = read_records(connection.execute(statement, {"run": run_id}), WorkCounts)
    return counts


def read_recent_speed(connection: Connection) -> float | None:
    """Return images per second and process of the slowest class of device, over its latest 20 chunks of a week.

    Only chunks with new predictions count. None without any.
    """
    statement = text("""
        SELECT min(images_per_second) FROM (
            SELECT sum(entries) / nullif(sum(wall_seconds), 0) AS images_per_second
            FROM (
                SELECT *, row_number() OVER (PARTITION BY device_class ORDER BY committed_at DESC) AS place
                FROM catalog.run_chunks
                WHERE tagged > 0 AND committed_at > now() - interval '7 days'
            ) latest
            WHERE place <= 20 GROUP BY device_class
        ) classes
    """)
    images_per_second: float | None = connection.execute(statement).scalar_one()
    return images_per_second


@dataclass(frozen=True)
class RunSummary(RunTotals):
    """A run and its totals so far."""

    run_id: str
    purpose: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    has_drifted: bool
    drift_sentence: str | None

    @property
    def title(self) -> str:
        """Return the title for people."""
        return title_run(self.run_id, self.started_at, self.purpose)

    @property
    def is_idle(self) -> bool:
        """Return whether the run ended well and had nothing to do."""
        return self.state == "succeeded" and self.planned_entries == 0


@dataclass(frozen=True)
class RunImages:
    """A sample of the images that a run tagged, and of those that failed in it and are still failed."""

    tagged: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass(frozen=True)
class RunDetails:
    """One run. ``report`` is None until the run is finished."""

    summary: RunSummary
    source_uri: str
    classifier_version_id: int | None
    encoder_version_id: int
    discovered: dict[str, int]
    entries_by_reason: dict[str, int]
    report: dict[str, Any] | None
    images: RunImages


def list_runs(connection: Connection, size: int) -> tuple[RunSummary, ...]:
    """List the latest runs, newest first. Runs without stored totals lack those by name."""
    rows = connection.execute(text(RUNS), {"run": None, "size": size}).all()
    return tuple(_summarize(row, row.totals or vars(count_chunks(connection, row.run_id))) for row in rows)


def read_run_details(connection: Connection, run_id: str) -> RunDetails | None:
    """Return one run, or None if it was never planned."""
    row = connection.execute(text(RUNS), {"run": run_id, "size": 1}).one_or_none()
    if row is None:
        return None
    run = connection.execute(
        text("""
            SELECT source_uri, classifier_version_id, encoder_version_id, discovered, entries_by_reason, report
            FROM catalog.tagging_runs WHERE run_id = :run
        """),
        {"run": run_id},
    ).one()
    summary = _summarize(row, row.totals or vars(sum_chunks(connection, run_id)))
    return RunDetails(summary, **run._mapping, images=_read_images(connection, summary, run.classifier_version_id))


def _summarize(run: Row[Any], totals: dict[str, Any]) -> RunSummary:
    own = {name: value for name, value in run._mapping.items() if name != "totals"}
    return RunSummary(**{**totals, **own})


def _read_images(connection: Connection, run: RunSummary, classifier_version_id: int | None) -> RunImages:
    parameters = {
        "run": run.run_id,
        "version": classifier_version_id,
        "started": run.started_at,
        "finished": run.finished_at,
        "size": SAMPLE_SIZE,
    }
    return RunImages(
        tuple(connection.execute(text(TAGGED_SAMPLE), parameters).scalars()),
        tuple(connection.execute(text(FAILED_SAMPLE), parameters).scalars()),
    )


RUNS = """
    SELECT run_id, purpose, state, started_at, finished_at, totals,
           extract(epoch FROM coalesce(finished_at, now()) - started_at)::float AS duration_seconds,
           coalesce((report -> 'drift' -> 'is_flagged')::boolean, false) AS has_drifted,
           report -> 'drift' ->> 'sentence' AS drift_sentence
    FROM catalog.tagging_runs
    WHERE CAST(:run AS text) IS NULL OR run_id = :run
    ORDER BY started_at DESC LIMIT :size
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
