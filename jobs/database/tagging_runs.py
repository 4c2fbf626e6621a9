"""Queries on ``tagging_runs``, ``run_shards`` and ``run_chunks``: plans, and the ledger of committed chunks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.alternatives import name_alternatives
from jobs.database.model_builds import DeviceClass
from jobs.database.records import read_record, text_with_json
from jobs.database.run_history import RunTotals
from jobs.errors import NotFoundError, RefusedError

Purpose = Literal["ingest", "retag"]
RunState = Literal["running", "succeeded", "failed"]


RUNS_COMPARED = 200
"""Number of the latest runs whose ids are compared with one that does not exist."""


@dataclass(frozen=True)
class RunModels:
    """The versions that a run uses from start to end. Without a classifier, it tags no images."""

    classifier_version_id: int | None
    encoder_version_id: int
    space_id: int


@dataclass(frozen=True)
class TaggingRun:
    """A planned run. ``report`` is None until the run has succeeded or failed."""

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
    """The number of images and chunks in a planned shard."""

    entries: int
    chunks: int


@dataclass(frozen=True)
class ChunkCounts:
    """The results of a chunk: ``entries == tagged + reused + failed``.

    ``tagged`` includes images that only the encoder processed. The stage seconds are summed over parallel workers, and
    ``wall_seconds`` is the time between two commits. The counts by category and confidence do not include copied tags,
    because they are compared with a `DriftReference`. ``waiting_seconds`` is the time blocked on each resource before
    this chunk was written. ``embedded`` includes copied vectors. ``has_index`` says whether the space had an index.
    ``device_class`` is what ran the models.
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
    device_class: DeviceClass = "cpu"


def has_requested_retraining(connection: Connection, run_id: str, days: int) -> bool:
    """Return whether another run with the same classifier requested a retraining in the ``days`` before this run."""
    statement = text("""
        SELECT EXISTS (
            SELECT FROM catalog.tagging_runs this
            JOIN catalog.tagging_runs earlier USING (classifier_version_id)
            WHERE this.run_id = :run AND (earlier.report -> 'requests_retraining')::boolean
              AND earlier.started_at < this.started_at
              AND earlier.started_at > this.started_at - make_interval(days => :days))
    """)
    return bool(connection.execute(statement, {"run": run_id, "days": days}).scalar_one())


def find_latest_run(connection: Connection, classifier_version_id: int) -> str | None:
    """Return the id of the latest finished run with a classifier, or None before the first."""
    statement = text("""
        SELECT run_id FROM catalog.tagging_runs
        WHERE classifier_version_id = :version AND finished_at IS NOT NULL ORDER BY started_at DESC LIMIT 1
    """)
    return connection.execute(statement, {"version": classifier_version_id}).scalar_one_or_none()


def insert_run(connection: Connection, run: TaggingRun, shards: Sequence[PlannedShard]) -> None:
    """Store a plan."""
    statement = """
        INSERT INTO catalog.tagging_runs (run_id, source_uri, manifest_uri, classifier_version_id, encoder_version_id,
                                          space_id, discovered, entries, entries_by_reason, purpose)
        VALUES (:run_id, :source_uri, :manifest_uri, :classifier_version_id, :encoder_version_id,
                :space_id, :discovered, :entries, :entries_by_reason, :purpose)
    """
    connection.execute(text_with_json(statement, "discovered", "entries_by_reason"), {**vars(run), **vars(run.models)})
    for number, shard in enumerate(shards):
        connection.execute(
            text("INSERT INTO catalog.run_shards VALUES (:run, :shard, :entries, :chunks)"),
            {"run": run.run_id, "shard": number, **vars(shard)},
        )


def lock_run(connection: Connection, run_id: str) -> None:
    """Block other transactions that plan this run until this one ends. They then find its plan."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('plan of ' || :run, 0))"), {"run": run_id})


def try_lock_watch(connection: Connection) -> bool:
    """Lock the events of the bucket until the connection closes. Return False if another process has locked them."""
    return bool(connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended('watch', 0))")))


def is_ingest_running(connection: Connection) -> bool:
    """Return whether a job of an ingest run has reported progress in the last two minutes."""
    statement = text("""
        SELECT EXISTS (
            SELECT FROM catalog.job_progress p LEFT JOIN catalog.tagging_runs r USING (run_id)
            WHERE p.updated_at > now() - interval '2 minutes' AND (p.task = 'discover' OR r.purpose = 'ingest'))
    """)
    return bool(connection.scalar(statement))


def try_lock_shard(connection: Connection, run_id: str, shard: int) -> bool:
    """Lock a shard until the connection closes. Return False if another process has locked it."""
    statement = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    return bool(connection.scalar(statement, {"key": f"{run_id}/{shard}"}))


def require_run(connection: Connection, run_id: str, purpose: Purpose) -> TaggingRun:
    """Return the plan of a run.

    Raises:
        NotFoundError: it was never planned.
        RefusedError: it was planned for another purpose.
    """
    run = read_run(connection, run_id, purpose)
    if run is None:
        raise NotFoundError(f"run {run_id!r} was never planned. {name_runs(connection, run_id, purpose)}")
    return run


def name_runs(connection: Connection, wanted: str, purpose: Purpose | None = None) -> str:
    """Return the end of an error message about a run that does not exist: the ids of similar or of the latest runs."""
    statement = text("""
        SELECT run_id FROM catalog.tagging_runs WHERE CAST(:purpose AS text) IS NULL OR purpose = :purpose
        ORDER BY started_at DESC LIMIT :size
    """)
    ids = connection.execute(statement, {"purpose": purpose, "size": RUNS_COMPARED}).scalars()
    return name_alternatives(wanted, ids, f"There is no {purpose or 'planned'} run yet")


def require_shard(connection: Connection, run_id: str, shard: int) -> None:
    """Check that a shard was planned.

    Raises:
        NotFoundError: the run was never planned, or has fewer shards.
    """
    statement = text("""
        SELECT (SELECT count(*) FROM catalog.run_shards s WHERE s.run_id = r.run_id) AS shards
        FROM catalog.tagging_runs r WHERE run_id = :run
    """)
    shards: int | None = connection.execute(statement, {"run": run_id}).scalar_one_or_none()
    if shards is None:
        raise NotFoundError(f"run {run_id!r} was never planned. {name_runs(connection, run_id)}")
    if shard >= shards:
        known = f"Its shards are 0 to {shards - 1}" if shards else "It has no shards, because no image was due"
        raise NotFoundError(f"run {run_id!r} has no shard {shard}. {known}")


def read_run(connection: Connection, run_id: str, purpose: Purpose) -> TaggingRun | None:
    """Return the plan of a run, or None if it was never planned.

    Raises:
        RefusedError: the run has another purpose.
    """
    rows = connection.execute(
        text("""
            SELECT r.*, (SELECT count(*) FROM catalog.run_shards s WHERE s.run_id = r.run_id) AS shards
            FROM catalog.tagging_runs r WHERE run_id = :run
        """),
        {"run": run_id},
    )
    run = read_record(rows, TaggingRun)
    if run is not None and run.purpose != purpose:
        raise RefusedError(f"run {run_id!r} belongs to `catalog {run.purpose}`, not to {purpose}")
    return run


def read_finished_chunks(connection: Connection, run_id: str, shard: int) -> frozenset[int]:
    """Return the numbers of the committed chunks of a shard."""
    statement = text("SELECT chunk FROM catalog.run_chunks WHERE run_id = :run AND shard = :shard")
    return frozenset(connection.execute(statement, {"run": run_id, "shard": shard}).scalars())


def insert_chunk(connection: Connection, run_id: str, shard: int, chunk: int, counts: ChunkCounts) -> None:
    """Add a chunk to the ledger. Call it last in the transaction that writes the chunk's results."""
    statement = """
        INSERT INTO catalog.run_chunks (run_id, shard, chunk, entries, tagged, reused, failed, failure_reasons,
            read_seconds, decode_seconds, predict_seconds, write_seconds, wall_seconds, category_counts,
            confidence_counts, waiting_seconds, embedded, has_index, device_class)
        VALUES (:run, :shard, :chunk, :entries, :tagged, :reused, :failed, :failure_reasons,
            :read_seconds, :decode_seconds, :predict_seconds, :write_seconds, :wall_seconds, :category_counts,
            :confidence_counts, :waiting_seconds, :embedded, :has_index, :device_class)
    """
    connection.execute(
        text_with_json(statement, "failure_reasons", "category_counts", "confidence_counts", "waiting_seconds"),
        {**vars(counts), "run": run_id, "shard": shard, "chunk": chunk},
    )


def finish_run(connection: Connection, run_id: str, state: RunState, report: dict[str, Any], totals: RunTotals) -> None:
    """Finish a run with its report. Store its totals if all chunks are committed."""
    is_complete = totals.entries == totals.planned_entries
    statement = """
        UPDATE catalog.tagging_runs SET state = :state, report = :report, totals = :totals, finished_at = now()
        WHERE run_id = :run
    """
    connection.execute(
        text_with_json(statement, "report", "totals"),
        {"run": run_id, "state": state, "report": report, "totals": asdict(totals) if is_complete else None},
    )
