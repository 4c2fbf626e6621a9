"""Run the whole retrain flow, like the DAG ``model_retrain`` but without Airflow."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from jobs.connections import Connections
from jobs.database.evaluations import read_latest_evaluation
from jobs.database.model_coverage import PromotionReport
from jobs.database.model_versions import ModelKind, read_champion
from jobs.errors import PermanentError, RefusedError
from jobs.retag.complete import RetagReport
from jobs.retag.retag import retag
from jobs.retrain.evaluate.evaluate import evaluate_candidate
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.gates import decide_gates
from jobs.retrain.optimize.optimize import optimize_candidate
from jobs.retrain.promote import promote_candidate
from jobs.retrain.snapshot.snapshot import SnapshotReport, SnapshotSettings, take_snapshot
from jobs.retrain.train.requests import TrainingRequest

log = logging.getLogger(__name__)

MakeRequest = Callable[[ModelKind], TrainingRequest]
Train = Callable[[str, str, TrainingRequest], None]
"""Train and register the candidate of a run, given its id, a snapshot and a request."""


@dataclass(frozen=True)
class RetrainOptions:
    """Options of one run. Pass the ``run_id`` of an interrupted run to resume it."""

    kinds: Literal["both", "classifier", "encoder"] = "both"
    run_id: str | None = None
    promoted_by: str = "retrain"


@dataclass(frozen=True)
class RetrainReport:
    """A finished run: its snapshot, its promotions, and its retag."""

    run_id: str
    snapshot_id: str
    promotions: tuple[PromotionReport, ...]
    retag: RetagReport


def retrain(
    connections: Connections, options: RetrainOptions, make_request: MakeRequest, train: Train, policy: GatePolicy
) -> RetrainReport:
    """Run all stages, one kind after the other, then retag.

    Raises:
        RefusedError: a request is invalid and nothing was trained, or a stage of one kind failed, for example a gate.
            If the candidate of the other kind passed, it is promoted and live.
    """
    run_id = options.run_id or f"retrain-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    log.info("if this run is interrupted, `catalog retrain --run %s` resumes it", run_id)
    snapshot = take_snapshot(connections, SnapshotSettings.from_settings(connections.settings))
    # Make all requests before the first training, to refuse invalid ones early.
    requests = [make_request(kind) for kind in _choose_kinds(options, snapshot)]
    promotions: list[PromotionReport] = []
    refusals: list[str] = []
    for request in requests:
        try:
            train(run_id, snapshot.snapshot_id, request)
            promotions.append(_promote(connections, run_id, request.kind, options, policy))
        except PermanentError as error:
            refusals.append(f"{request.kind}: {error}")
            log.error("%s", refusals[-1])
    report = RetrainReport(run_id, snapshot.snapshot_id, tuple(promotions), retag(connections, f"{run_id}/retag"))
    if refusals:
        raise RefusedError("; ".join(refusals))
    return report


def _choose_kinds(options: RetrainOptions, snapshot: SnapshotReport) -> tuple[ModelKind, ...]:
    if options.kinds != "both":
        return (options.kinds,)
    if snapshot.images == snapshot.without_text:
        log.info("no label has a text: skipping the encoder")
        return ("classifier",)
    return ("classifier", "encoder")


def _is_promoted(connections: Connections, run_id: str, kind: ModelKind) -> bool:
    """Return whether a killed run had already promoted this candidate, which must not be compared with itself."""
    with connections.engine.connect() as connection:
        evaluation, champion = read_latest_evaluation(connection, run_id, kind), read_champion(connection, kind)
    return bool(evaluation and champion and evaluation.candidate_version_id == champion.model_version_id)


def _promote(
    connections: Connections, run_id: str, kind: ModelKind, options: RetrainOptions, policy: GatePolicy
) -> PromotionReport:
    """Run the stages after the training."""
    if not _is_promoted(connections, run_id, kind):
        optimize_candidate(connections, run_id, kind, policy)
        evaluate_candidate(connections, run_id, kind)
        decide_gates(connections, run_id, kind, policy)
    return promote_candidate(connections, run_id, kind, options.promoted_by)
