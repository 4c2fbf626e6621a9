"""The whole retrain flow in one process: what the DAG ``model_retrain`` does, without Airflow."""

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
from jobs.retrain.gates.gate import decide_gates
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.optimize.optimize import optimize_candidate
from jobs.retrain.promote import promote_candidate
from jobs.retrain.snapshot.snapshot import SnapshotReport, SnapshotSettings, take_snapshot
from jobs.retrain.train.requests import TrainingRequest
from jobs.retrain.train.train import train_candidate

log = logging.getLogger(__name__)

MakeRequest = Callable[[ModelKind], TrainingRequest]


@dataclass(frozen=True)
class RetrainOptions:
    """What a caller may ask of one run; the ``run_id`` of a run that stopped halfway resumes it."""

    kinds: Literal["both", "classifier", "encoder"] = "both"
    run_id: str | None = None
    promoted_by: str = "retrain"


@dataclass(frozen=True)
class RetrainReport:
    """A finished run: which data set, who was promoted, and how the catalog was brought over."""

    run_id: str
    snapshot_id: str
    promotions: tuple[PromotionReport, ...]
    retag: RetagReport


def retrain(
    connections: Connections, options: RetrainOptions, make_request: MakeRequest, policy: GatePolicy
) -> RetrainReport:
    """Run all stages, one kind after the other.

    Raises:
        RefusedError: a request cannot be made, and nothing is trained; or a gate failed: a candidate of the other
            kind that passed is promoted by then, and the catalog brought over to it.
    """
    run_id = options.run_id or f"retrain-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    log.info("if this run stops halfway, `python -m jobs retrain --run %s` goes on", run_id)
    snapshot = take_snapshot(connections, SnapshotSettings.from_settings(connections.settings))
    # All before the first training: what is asked for wrongly is refused before anything is done.
    requests = [make_request(kind) for kind in _choose_kinds(options, snapshot)]
    promotions: list[PromotionReport] = []
    refusals: list[str] = []
    for request in requests:
        try:
            promotions.append(_retrain_kind(connections, run_id, snapshot, request, options, policy))
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
        log.info("no label has a text: the encoder is left out")
        return ("classifier",)
    return ("classifier", "encoder")


def _is_promoted(connections: Connections, run_id: str, kind: ModelKind) -> bool:
    """Tell whether the run was killed after this promotion: the candidate must not compete with itself."""
    with connections.engine.connect() as connection:
        evaluation, champion = read_latest_evaluation(connection, run_id, kind), read_champion(connection, kind)
    return bool(evaluation and champion and evaluation.candidate_version_id == champion.model_version_id)


def _retrain_kind(
    connections: Connections,
    run_id: str,
    snapshot: SnapshotReport,
    request: TrainingRequest,
    options: RetrainOptions,
    policy: GatePolicy,
) -> PromotionReport:
    train_candidate(connections, run_id, snapshot.snapshot_id, request)
    if not _is_promoted(connections, run_id, request.kind):
        optimize_candidate(connections, run_id, request.kind, policy)
        evaluate_candidate(connections, run_id, request.kind)
        decide_gates(connections, run_id, request.kind, policy)
    return promote_candidate(connections, run_id, request.kind, options.promoted_by)
