"""Stage 6 of the retrain flow: promote a candidate that passed its gates, or carry out a user's decision."""

import logging

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.evaluations import Evaluation, name_evaluated_runs, read_latest_evaluation
from jobs.database.model_coverage import PromotionReport, report_champion
from jobs.database.model_versions import ModelKind, read_champion, read_live_model
from jobs.database.promotions import (
    NewPromotion,
    Switch,
    close_decision,
    find_rollback,
    insert_promotion,
    insert_switch,
    lock_promotions,
    read_decision,
    read_latest_promotion,
)
from jobs.errors import NotFoundError, RefusedError
from jobs.retag.rollback import roll_back

log = logging.getLogger(__name__)


def promote_candidate(
    connections: Connections, run_id: str, kind: ModelKind, promoted_by: str, decision_id: int | None = None
) -> PromotionReport:
    """Promote the candidate of a run in one transaction. A repeated call changes nothing.

    The first classifier goes live at once, because it replaces nothing. A later one, and any encoder, goes live after
    a retag. ``decision_id`` is the user's decision that this call carries out and closes.

    Raises:
        NotFoundError: the run has no evaluation of this kind.
        RefusedError: a gate failed or is missing, the champion changed since the evaluation, or the candidate was
            rolled back before.
    """
    with connections.engine.begin() as connection:
        evaluation = read_latest_evaluation(connection, run_id, kind)
        if evaluation is None:
            raise NotFoundError(
                f"run {run_id!r} has no evaluated {kind}: run `catalog evaluate {kind} --run {run_id}` first. "
                f"{name_evaluated_runs(connection, run_id, kind)}"
            )
        lock_promotions(connection)
        if decision_id is not None:
            close_decision(connection, decision_id)
        latest = read_latest_promotion(connection, kind)
        if latest and latest.model_version_id == evaluation.candidate_version_id:
            log.info("%s %d is already the champion", kind, latest.model_version_id)
            return report_champion(connection, kind, is_new=False)
        require_promotable(connection, evaluation, latest.model_version_id if latest else None)
        promotion = NewPromotion(
            kind=kind,
            model_version_id=evaluation.candidate_version_id,
            replaced_version_id=evaluation.champion_version_id,
            evaluation_id=evaluation.evaluation_id,
            promoted_by=promoted_by,
            reason=f"passed its gates in run {run_id}",
        )
        insert_promotion(connection, promotion)
        if kind == "classifier" and read_live_model(connection, kind) is None:
            insert_switch(connection, Switch(kind, promotion.model_version_id, None))
        return report_champion(connection, kind, is_new=True)


def require_promotable(connection: Connection, evaluation: Evaluation, champion_version_id: int | None) -> None:
    """Check that a candidate passed its gates against the current champion and was never rolled back.

    Raises:
        RefusedError: one of these conditions is not met.
    """
    from jobs.retrain.gates.gates import require_passed_gates

    require_passed_gates(connection, evaluation)
    _require_compared_champion(evaluation, champion_version_id)
    _require_not_rolled_back(connection, evaluation)


def _require_compared_champion(evaluation: Evaluation, champion_version_id: int | None) -> None:
    if champion_version_id == evaluation.champion_version_id:
        return

    def describe(version_id: int | None) -> str:
        return "none" if version_id is None else f"{evaluation.kind} {version_id}"

    raise RefusedError(
        f"the champion is now {describe(champion_version_id)}, but the candidate was compared with "
        f"{describe(evaluation.champion_version_id)}: evaluate it again with "
        f"`catalog evaluate {evaluation.kind} --run {evaluation.run_id}`"
    )


def _require_not_rolled_back(connection: Connection, evaluation: Evaluation) -> None:
    """Refuse a version that was rolled back.

    Training on the same labels and settings gives the same weights, so the version would come back every week.
    """
    kind, version = evaluation.kind, evaluation.candidate_version_id
    rollback = find_rollback(connection, kind, version)
    if rollback:
        raise RefusedError(
            f"{kind} {version} was rolled back ({rollback}): train another one with more labels or other settings, or "
            f"restore this one with `catalog rollback {kind} --to {version}`"
        )


def carry_out_decision(connections: Connections, decision_id: int) -> PromotionReport:
    """Carry out a user's promotion or rollback once. A repeated call only finishes a rollback killed after its switch.

    Raises:
        NotFoundError: the decision does not exist.
        RefusedError: the decision is older than a day, or cannot be carried out.
    """
    with connections.engine.connect() as connection:
        stored = read_decision(connection, decision_id)
        if stored is None:
            raise NotFoundError(
                f"decision {decision_id} does not exist: users with the right to promote confirm promotions and "
                "rollbacks on the page Models"
            )
        decision = stored.decision
        champion = read_champion(connection, decision.kind)
        if stored.is_done and (champion is None or champion.model_version_id != decision.to_version_id):
            return report_champion(connection, decision.kind, is_new=False)
        if stored.is_expired and not stored.is_done:
            raise RefusedError(f"decision {decision_id} is older than a day: confirm it again on the page Models")
    open_id = None if stored.is_done else decision_id
    if decision.run_id is not None:
        return promote_candidate(connections, decision.run_id, decision.kind, decision.decided_by, open_id)
    return roll_back(connections, decision.kind, decision.to_version_id, decision.decided_by, decision.reason, open_id)
