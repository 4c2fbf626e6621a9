"""Stage 8, report: summarize a run as one record, one row and one JSON file."""

import json
import logging
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine

from jobs.database.run_history import EmbeddedCounts, RunTotals, count_embedded, sum_chunks
from jobs.database.spaces import has_space_index
from jobs.database.tagging_runs import RunState, TaggingRun, finish_run, has_asked_for_retraining, require_run
from jobs.errors import RefusedError
from jobs.ingest.drift import DriftReport, DriftSettings, measure_drift
from jobs.storage.layout import report_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri


@dataclass(frozen=True)
class IndexFilling:
    """Vectors that were written while their space had no index, those that were added to one, and why."""

    loaded_first: int
    added_singly: int
    sentence: str


def read_index_filling(connection: Connection, run_id: str, space_id: int) -> IndexFilling:
    """What the ledger says of a run and its top-ups."""
    counts = count_embedded(connection, run_id)
    sentence = explain_filling(counts, has_space_index(connection, space_id))
    return IndexFilling(counts.without_index, counts.into_index, sentence)


def explain_filling(counts: EmbeddedCounts, has_index: bool) -> str:
    """What was done and why; ``has_index`` says whether the index is there by now."""
    parts = []
    if counts.without_index:
        after = (
            "and indexed by one build, several times faster than one by one" if has_index else "and are not indexed yet"
        )
        parts.append(f"{counts.without_index} vectors were loaded into a space without an index {after}")
    if counts.into_index:
        parts.append(
            f"{counts.into_index} vectors were added one by one to an index that was there, which stays for the "
            "searches or the rollback that need it"
        )
    return "; ".join(parts) or "no vectors were written"


log = logging.getLogger(__name__)

DAYS_BETWEEN_REQUESTS = 7


@dataclass(frozen=True)
class Wait:
    """Seconds in which the shards of a run could do nothing but wait for a resource, and their share of all seconds."""

    seconds: float
    share: float


@dataclass(frozen=True)
class RunReport:
    """A finished run: ``entries == tagged + reused + failed``.

    The seconds of the stages are summed over parallel workers; ``images_per_second`` is measured from the
    start of the first chunk to the commit of the last, ``duration_seconds`` from planning to this report. The
    ``bottleneck`` is what was waited for longest: bucket, decode, forward or database. ``drift``
    is None where the classifier has no reference to compare with. A drift asks for a retraining, but not every night:
    within `DAYS_BETWEEN_REQUESTS` of one, the same labels would be learned again. A run that counts as failed asks for
    nothing.
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
    duration_seconds: float
    index: IndexFilling
    drift: DriftReport | None
    asks_for_retraining: bool


def report_run(
    engine: Engine,
    store: ObjectStore,
    artifacts: S3Uri,
    run_id: str,
    failed_share_limit: float,
    drift_settings: DriftSettings,
) -> RunReport:
    """Close a run: add its chunks up, keep the report, and judge it.

    Raises:
        RefusedError: the run was never planned, images were left out, or more of them failed than the limit
            allows; all that was tagged is saved by then, and so is the report.
    """
    with engine.begin() as connection:
        run = require_run(connection, run_id, "ingest")
        totals = sum_chunks(connection, run_id)
        fault = find_fault(totals, failed_share_limit)
        drift = _recall_drift(run) or measure_drift(
            connection, run_id, run.models.classifier_version_id, drift_settings
        )
        has_drifted = drift is not None and drift.is_flagged and not fault
        asks = has_drifted and not has_asked_for_retraining(connection, run_id, DAYS_BETWEEN_REQUESTS)
        index = read_index_filling(connection, run_id, run.models.space_id)
        report = _build_report(run, totals, index, drift, asks, "failed" if fault else "succeeded")
        finish_run(connection, run_id, report.state, asdict(report), totals)
    content = json.dumps(asdict(report), indent=2)
    store.write(report_location(artifacts, run_id), content.encode())
    log.info("report of run %s:\n%s", run_id, content)
    if drift and drift.is_flagged:
        log.warning("drift: %s", drift.sentence)
    if fault:
        raise RefusedError(fault)
    return report


def _recall_drift(run: TaggingRun) -> DriftReport | None:
    """What was reported before: the run itself is part of the reference by now."""
    drift = run.report and run.report["drift"]
    return DriftReport(**drift) if drift else None


def find_fault(totals: RunTotals, failed_share_limit: float) -> str | None:
    """Why a run must not count as a success, or None."""
    if totals.entries != totals.tagged + totals.reused + totals.failed:
        return f"the sums disagree: {totals}"
    left_out = totals.planned_entries - totals.entries
    if left_out:
        return f"{left_out} of {totals.planned_entries} images were not reached: run the unfinished shards again"
    if totals.failed > failed_share_limit * totals.entries:
        reasons = ", ".join(f"{reason} {count}" for reason, count in totals.failure_reasons.items())
        return (
            f"{totals.failed} of {totals.entries} images failed ({reasons}), more than the "
            f"{failed_share_limit:.1%} of CATALOG_FAILED_SHARE_LIMIT; the others are saved. "
            "See the view catalog.item_failure_summary"
        )
    return None


def _build_report(
    run: TaggingRun, totals: RunTotals, index: IndexFilling, drift: DriftReport | None, asks: bool, state: RunState
) -> RunReport:
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
        bottleneck=max(totals.waiting_seconds, key=totals.waiting_seconds.__getitem__, default=None),
        duration_seconds=round(totals.duration_seconds, 3),
        index=index,
        drift=drift,
        asks_for_retraining=asks,
    )
