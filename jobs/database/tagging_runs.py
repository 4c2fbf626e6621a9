"""The ledger of tagging runs: runs, shards, chunks and failed photos, with each statement that reads or writes them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.errors import NotFoundError, RefusedError

Purpose = Literal["ingest", "retag"]
RunState = Literal["running", "succeeded", "failed"]


@dataclass(frozen=True)
class RunModels:
    """The versions that a run uses from its first image to its last; without a classifier, images get no tags."""

    classifier_version_id: int | None
    encoder_version_id: int
    space_id: int


@dataclass(frozen=True)
class TaggingRun:
    """A planned run; ``report`` is None until it was finished, well or not."""

    run_id: str
    source_uri: str
    manifest_uri: str
    models: RunModels
    discovered: dict[str, int]
    entries: int
    entries_by_reason: dict[str, int]
    shards: int
    purpose: Purpose = "ingest"
    state: RunState = "running"
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class PlannedShard:
    """A shard as planned: how many images in how many chunks."""

    entries: int
    chunks: int


@dataclass(frozen=True)
class ChunkCounts:
    """What became of a chunk: ``entries == tagged + reused + failed``.

    ``tagged`` counts the images that a model answered, also those that only the encoder did.
    The stage seconds are summed over parallel workers; ``wall_seconds`` is the time between two commits. The counts
    of categories and confidences are of the images that the classifier itself answered, as in `DriftReference`.
    ``waiting_seconds`` says for what nothing else could go on before this chunk was written. ``embedded`` counts the
    vectors, copies among them, and ``has_index`` says whether their space had its index by then.
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
    category_counts: dict[str, int] = field(default_factory=dict)
    confidence_counts: list[int] = field(default_factory=list)
    waiting_seconds: dict[str, float] = field(default_factory=dict)
    embedded: int = 0
    has_index: bool = False


@dataclass(frozen=True)
class RunTotals:
    """The sums over all chunks of a run, and how much of the plan they cover; see `ChunkCounts`.

    They are kept as JSON in ``tagging_runs.totals``: a field that joins later needs a default.
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


def has_asked_for_retraining(connection: Connection, run_id: str, days: int) -> bool:
    """Whether an earlier run by the same classifier, at most ``days`` before this one, asked for a retraining."""
    statement = text("""
        SELECT EXISTS (
            SELECT FROM catalog.tagging_runs this
            JOIN catalog.tagging_runs earlier USING (classifier_version_id)
            WHERE this.run_id = :run AND (earlier.report -> 'asks_for_retraining')::boolean
              AND earlier.started_at < this.started_at
              AND earlier.started_at > this.started_at - make_interval(days => :days))
    """)
    return bool(connection.execute(statement, {"run": run_id, "days": days}).scalar_one())


def insert_run(connection: Connection, run: TaggingRun, shards: Sequence[PlannedShard]) -> None:
    """Store a plan."""
    connection.execute(
        text("""
            INSERT INTO catalog.tagging_runs (run_id, source_uri, manifest_uri, classifier_version_id,
                                              encoder_version_id, space_id, discovered, entries, entries_by_reason,
                                              purpose)
            VALUES (:run, :source, :manifest, :classifier, :encoder, :space, :discovered, :entries, :reasons, :purpose)
        """),
        {
            "run": run.run_id,
            "source": run.source_uri,
            "manifest": run.manifest_uri,
            "classifier": run.models.classifier_version_id,
            "encoder": run.models.encoder_version_id,
            "space": run.models.space_id,
            "discovered": json.dumps(run.discovered),
            "entries": run.entries,
            "reasons": json.dumps(run.entries_by_reason),
            "purpose": run.purpose,
        },
    )
    for number, shard in enumerate(shards):
        connection.execute(
            text("INSERT INTO catalog.run_shards VALUES (:run, :shard, :entries, :chunks)"),
            {
                "run": run.run_id,
                "shard": number,
                "entries": shard.entries,
                "chunks": shard.chunks,
            },
        )


def lock_run(connection: Connection, run_id: str) -> None:
    """Let one transaction at a time plan a run: those that wait find the plan of the first."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('plan of ' || :run, 0))"), {"run": run_id})


def require_run(connection: Connection, run_id: str, purpose: Purpose) -> TaggingRun:
    """The plan of a run.

    Raises:
        PermanentError: it was never planned, or for another purpose.
    """
    run = read_run(connection, run_id, purpose)
    if run is None:
        raise NotFoundError(f"run {run_id!r} was never planned")
    return run


def read_run(connection: Connection, run_id: str, purpose: Purpose) -> TaggingRun | None:
    """The plan of a run, or None if it was never planned; raises PermanentError if it has another purpose."""
    row = connection.execute(
        text("""
            SELECT r.*, (SELECT count(*) FROM catalog.run_shards s WHERE s.run_id = r.run_id) AS shards
            FROM catalog.tagging_runs r WHERE run_id = :run
        """),
        {"run": run_id},
    ).one_or_none()
    if row is None:
        return None
    if row.purpose != purpose:
        raise RefusedError(f"run {run_id!r} belongs to `python -m jobs {row.purpose}`, not to {purpose}")
    models = RunModels(row.classifier_version_id, row.encoder_version_id, row.space_id)
    return TaggingRun(
        row.run_id,
        row.source_uri,
        row.manifest_uri,
        models,
        row.discovered,
        row.entries,
        row.entries_by_reason,
        row.shards,
        row.purpose,
        row.state,
        row.report,
    )


def read_finished_chunks(connection: Connection, run_id: str, shard: int) -> frozenset[int]:
    """The chunks of a shard that are committed."""
    statement = text("SELECT chunk FROM catalog.run_chunks WHERE run_id = :run AND shard = :shard")
    return frozenset(connection.execute(statement, {"run": run_id, "shard": shard}).scalars())


def insert_chunk(connection: Connection, run_id: str, shard: int, chunk: int, counts: ChunkCounts) -> None:
    """Enter a chunk in the ledger; called last in the transaction that writes its results."""
    connection.execute(
        text("""
            INSERT INTO catalog.run_chunks (run_id, shard, chunk, entries, tagged, reused, failed, failure_reasons,
                read_seconds, decode_seconds, predict_seconds, write_seconds, wall_seconds, category_counts,
                confidence_counts, waiting_seconds, embedded, has_index)
            VALUES (:run, :shard, :chunk, :entries, :tagged, :reused, :failed, :failure_reasons,
                :read_seconds, :decode_seconds, :predict_seconds, :write_seconds, :wall_seconds, :category_counts,
                :confidence_counts, :waiting_seconds, :embedded, :has_index)
        """),
        {
            **asdict(counts),
            "run": run_id,
            "shard": shard,
            "chunk": chunk,
            "failure_reasons": json.dumps(counts.failure_reasons),
            "category_counts": json.dumps(counts.category_counts),
            "confidence_counts": json.dumps(counts.confidence_counts),
            "waiting_seconds": json.dumps(counts.waiting_seconds),
        },
    )


def sum_chunks(connection: Connection, run_id: str) -> RunTotals:
    """Add up the ledger of a run."""
    row = connection.execute(
        text("""
            SELECT coalesce(sum(c.entries), 0) AS entries, coalesce(sum(c.tagged), 0) AS tagged,
                   coalesce(sum(c.reused), 0) AS reused, coalesce(sum(c.failed), 0) AS failed,
                   coalesce(sum(c.read_seconds), 0) AS read_seconds,
                   coalesce(sum(c.decode_seconds), 0) AS decode_seconds,
                   coalesce(sum(c.predict_seconds), 0) AS predict_seconds,
                   coalesce(sum(c.write_seconds), 0) AS write_seconds,
                   coalesce(sum(c.wall_seconds), 0) AS wall_seconds,
                   sum(c.entries) / nullif(extract(epoch FROM max(c.committed_at)
                       - min(c.committed_at - c.wall_seconds * interval '1 second'))::float, 0) AS images_per_second,
                   r.entries AS planned_entries,
                   extract(epoch FROM now() - r.started_at)::float AS duration_seconds
            FROM catalog.tagging_runs r LEFT JOIN catalog.run_chunks c USING (run_id)
            WHERE run_id = :run GROUP BY r.run_id
        """),
        {"run": run_id},
    ).one()
    waiting = _sum_by_name(connection, run_id, "waiting_seconds")
    return RunTotals(
        **row._mapping,
        failure_reasons=_to_counts(_sum_by_name(connection, run_id, "failure_reasons")),
        waiting_seconds=dict(sorted(waiting.items(), key=lambda wait: -wait[1])),
        category_counts=_to_counts(_sum_by_name(connection, run_id, "category_counts")),
        confidence_counts=_sum_confidences(connection, run_id),
    )


def read_totals(connection: Connection, run_id: str) -> RunTotals:
    """As they were when the run was finished, or as far as it has come."""
    statement = text("SELECT totals FROM catalog.tagging_runs WHERE run_id = :run")
    totals = connection.execute(statement, {"run": run_id}).scalar_one()
    return RunTotals(**totals) if totals else sum_chunks(connection, run_id)


def _sum_by_name(connection: Connection, run_id: str, column: str) -> dict[str, float]:
    rows = connection.execute(
        text(f"""
            SELECT name, sum(number::float) FROM catalog.run_chunks, jsonb_each_text({column}) AS one (name, number)
            WHERE run_id = :run GROUP BY name ORDER BY name
        """),
        {"run": run_id},
    )
    return {name: float(number) for name, number in rows}


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


@dataclass(frozen=True)
class EmbeddedCounts:
    """Vectors that were written into a space without an index, and those that were added to an index."""

    without_index: int
    into_index: int


def count_embedded(connection: Connection, run_id: str) -> EmbeddedCounts:
    """Add up the ledgers of a run and of the runs whose ids lie below its own."""
    statement = text("""
        SELECT coalesce(sum(embedded) FILTER (WHERE NOT has_index), 0)::integer,
               coalesce(sum(embedded) FILTER (WHERE has_index), 0)::integer
        FROM catalog.run_chunks WHERE run_id = :run OR starts_with(run_id, :run || '/')
    """)
    return EmbeddedCounts(*connection.execute(statement, {"run": run_id}).one())


@dataclass(frozen=True)
class WorkCounts:
    """Images that were worked on, and those among them that failed."""

    entries: int
    failed: int


def sum_run_and_parts(connection: Connection, run_id: str) -> WorkCounts:
    """Add up the ledgers of a run and of the runs whose ids lie below its own."""
    statement = text("""
        SELECT coalesce(sum(entries), 0)::integer, coalesce(sum(failed), 0)::integer FROM catalog.run_chunks
        WHERE run_id = :run OR starts_with(run_id, :run || '/')
    """)
    return WorkCounts(*connection.execute(statement, {"run": run_id}).one())


def finish_run(connection: Connection, run_id: str, state: RunState, report: dict[str, Any], totals: RunTotals) -> None:
    """Close a run with its report, and keep its totals if no more chunks can come."""
    is_complete = totals.entries == totals.planned_entries
    connection.execute(
        text("""
            UPDATE catalog.tagging_runs SET state = :state, report = :report, totals = :totals, finished_at = now()
            WHERE run_id = :run
        """),
        {
            "run": run_id,
            "state": state,
            "report": json.dumps(report),
            "totals": json.dumps(asdict(totals)) if is_complete else None,
        },
    )


def read_recent_speed(connection: Connection) -> float | None:
    """Images per second and process in the latest 20 chunks that computed something, or None before the first."""
    statement = text("""
        SELECT sum(entries) / nullif(sum(wall_seconds), 0)
        FROM (SELECT * FROM catalog.run_chunks WHERE tagged > 0 ORDER BY committed_at DESC LIMIT 20) latest
    """)
    images_per_second: float | None = connection.execute(statement).scalar_one()
    return images_per_second


def retry_failures(connection: Connection, image_ids: Sequence[int], asked_by: str) -> int:
    """Have the next ingest ask these images once more, also if no attempt was left; returns how many are open."""
    return _decide(
        connection,
        image_ids,
        asked_by,
        "retry_asked_by = :person, retry_asked_at = now(), ignored_by = NULL, ignored_at = NULL",
    )


def ignore_failures(connection: Connection, image_ids: Sequence[int], ignored_by: str) -> int:
    """Leave these images alone until their bytes change; returns how many are open."""
    return _decide(
        connection,
        image_ids,
        ignored_by,
        "ignored_by = :person, ignored_at = now(), retry_asked_by = NULL, retry_asked_at = NULL",
    )


def _decide(connection: Connection, image_ids: Sequence[int], person: str, changes: str) -> int:
    statement = text(f"""
        UPDATE catalog.item_failures SET {changes} WHERE image_id = ANY (:ids) AND resolved_at IS NULL
    """)
    return connection.execute(statement, {"person": person, "ids": list(image_ids)}).rowcount
