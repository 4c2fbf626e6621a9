"""Stage 8, report: summarize a run, store the report, and decide whether the run succeeded."""

import json
import logging
from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.promotions import list_stuck_retags
from jobs.database.run_history import EmbeddedCounts, RunTotals, count_embedded, sum_chunks
from jobs.database.spaces import has_space_index
from jobs.database.tagging_runs import RunState, TaggingRun, finish_run, has_requested_retraining, require_run
from jobs.errors import RefusedError
from jobs.ingest.drift import DriftReport, measure_drift
from jobs.storage.locations import report_location

log = logging.getLogger(__name__)

DAYS_BETWEEN_RETRAININGS = 7
"""Drift triggers retraining at most this often, because the labels hardly change in less time."""


ADVICE = {
    "bucket": "Move the workers closer to the bucket, or raise CATALOG_DECODE_PROCESSES: each has four reading threads",
    "decode": "Use a machine with more cores; CATALOG_DECODE_PROCESSES is one for each core by default",
    "forward": "The models are the limit: use a GPU, more workers (CATALOG_TAGGING_SLOTS) or smaller models",
    "database": "Check the disks and the load of the database; more shards at the same time do not help",
}
"""Advice for each bottleneck."""


@dataclass(frozen=True)
class IndexFilling:
    """Numbers of vectors written before the index was built and into an existing index, and a sentence about them."""

    loaded_first: int
    added_singly: int
    sentence: str


def read_index_filling(connection: Connection, run_id: str, space_id: int) -> IndexFilling:
    """Report whether the vectors of a run and its top-ups were loaded before indexing or into an existing index."""
    counts = count_embedded(connection, run_id)
    sentence = explain_filling(counts, has_space_index(connection, space_id))
    return IndexFilling(counts.without_index, counts.into_index, sentence)


def explain_filling(counts: EmbeddedCounts, has_index: bool) -> str:
    """Explain in a sentence how vectors were written. ``has_index`` says whether the index exists now."""
    parts = []
    if counts.without_index:
        build = "the index was built afterwards, which is several times faster" if has_index else "it is not built yet"
        parts.append(f"{counts.without_index} vectors were loaded before the index; {build}")
    if counts.into_index:
        parts.append(
            f"{counts.into_index} vectors were added to an existing index, which searches or a rollback still need"
        )
    return "; ".join(parts) or "no vectors were written"


@dataclass(frozen=True)
class Wait:
    """How long the shards of a run were blocked on a resource, in seconds and as a share of their total time."""

    seconds: float
    share: float


@dataclass(frozen=True)
class RunReport:
    """Summary of a finished run: ``entries == tagged + reused + failed``.

    Stage seconds are summed over parallel workers. ``images_per_second`` covers the time from the start of the first
    chunk to the commit of the last, ``duration_seconds`` the time from planning to this report. ``bottleneck`` is the
    resource that shards waited for longest: bucket, decode, forward or database. ``advice`` says what would relieve it.
    ``drift`` is None if the classifier has no reference. A failed run never requests a retraining. ``stuck_retags`` has
    a sentence for each champion that should be live by now.
    """

    run_id: str
    state: RunState
    source_uri: str
    discovered: dict[str, int]
    entries: int
    tagged: int
    reused: int
    failed: int
    failure_reasons: dict[str, int]
    images_per_second: float | None
    read_seconds: float
    decode_seconds: float
    predict_seconds: float
    write_seconds: float
    waiting: dict[str, Wait]
    bottleneck: str | None
    advice: str | None
    duration_seconds: float
    index: IndexFilling
    drift: DriftReport | None
    requests_retraining: bool
    stuck_retags: tuple[str, ...]


def report_run(connections: Connections, run_id: str) -> RunReport:
    """Finish a run: add up its chunks, store the report, and decide whether it succeeded.

    Raises:
        NotFoundError: the run was never planned.
        RefusedError: images were skipped, or more images failed than the limit allows. Results and report are stored
            anyway.
    """
    settings = connections.settings.runs
    with connections.engine.begin() as connection:
        run = require_run(connection, run_id, "ingest")
        totals = sum_chunks(connection, run_id)
        error = find_run_error(totals, settings.failed_share_limit)
        classifier = run.models.classifier_version_id
        drift = _read_stored_drift(run) or measure_drift(connection, run_id, classifier, settings)
        has_drifted = drift is not None and drift.is_flagged and not error
        asks = has_drifted and not has_requested_retraining(connection, run_id, DAYS_BETWEEN_RETRAININGS)
        index = read_index_filling(connection, run_id, run.models.space_id)
        stuck = list_stuck_retags(connection)
        report = _build_report(run, totals, index, drift, asks, stuck, "failed" if error else "succeeded")
        finish_run(connection, run_id, report.state, asdict(report), totals)
    content = json.dumps(asdict(report), indent=2)
    connections.store.write(report_location(connections.artifacts, run_id), content.encode())
    log.info("report of run %s:\n%s", run_id, content, extra={"is_report": True})
    if drift and drift.is_flagged:
        log.warning("drift: %s", drift.sentence)
    if error:
        raise RefusedError(error)
    return report


def _read_stored_drift(run: TaggingRun) -> DriftReport | None:
    """Return the drift of an earlier report. It cannot be measured again: the reference now includes this run."""
    drift = run.report and run.report["drift"]
    return DriftReport(**drift) if drift else None


def find_run_error(totals: RunTotals, failed_share_limit: float) -> str | None:
    """Return why a run failed, or None if it succeeded."""
    if totals.entries != totals.tagged + totals.reused + totals.failed:
        return f"the counts of the run do not add up: {totals}"
    missing = totals.planned_entries - totals.entries
    if missing:
        return f"{missing} of {totals.planned_entries} images were not processed. Run the unfinished shards again"
    if totals.failed > failed_share_limit * totals.entries:
        reasons = ", ".join(f"{reason} {count}" for reason, count in totals.failure_reasons.items())
        return (
            f"{totals.failed} of {totals.entries} images failed ({reasons}), more than the "
            f"{failed_share_limit:.1%} of CATALOG_FAILED_SHARE_LIMIT. The other images are saved. "
            "See the view catalog.item_failure_summary"
        )
    return None


def _build_report(
    run: TaggingRun,
    totals: RunTotals,
    index: IndexFilling,
    drift: DriftReport | None,
    asks: bool,
    stuck: tuple[str, ...],
    state: RunState,
) -> RunReport:
    bottleneck = max(totals.waiting_seconds, key=totals.waiting_seconds.__getitem__, default=None)
    return RunReport(
        run_id=run.run_id,
        state=state,
        source_uri=run.source_uri,
        discovered=run.discovered,
        entries=totals.entries,
        tagged=totals.tagged,
        reused=totals.reused,
        failed=totals.failed,
        failure_reasons=totals.failure_reasons,
        images_per_second=round(totals.images_per_second, 2) if totals.images_per_second else None,
        read_seconds=round(totals.read_seconds, 3),
        decode_seconds=round(totals.decode_seconds, 3),
        predict_seconds=round(totals.predict_seconds, 3),
        write_seconds=round(totals.write_seconds, 3),
        waiting={
            resource: Wait(round(seconds, 3), round(seconds / totals.wall_seconds, 3))
            for resource, seconds in totals.waiting_seconds.items()
        },
        bottleneck=bottleneck,
        advice=ADVICE.get(bottleneck) if bottleneck else None,
        duration_seconds=round(totals.duration_seconds, 3),
        index=index,
        drift=drift,
        requests_retraining=asks,
        stuck_retags=stuck,
    )
