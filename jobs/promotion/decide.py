"""Carrying out what a person decided on the page "Models"."""

from jobs.connections import Connections
from jobs.database.champion_decisions import read_decision
from jobs.errors import PermanentError
from jobs.promotion.promote import PromotionReport, promote_candidate, report_champion
from jobs.promotion.rollback import roll_back


def carry_out_decision(connections: Connections, decision_id: int) -> PromotionReport:
    """Promote or roll back; a decision that was carried out before changes nothing.

    Raises:
        PermanentError: there is no such decision, it is older than a day, or it cannot be carried out.
    """
    with connections.engine.connect() as connection:
        stored = read_decision(connection, decision_id)
        if stored is None:
            raise PermanentError(
                f"there is no decision {decision_id}: promotions and rollbacks are confirmed on the page Models, by "
                "those who may"
            )
        decision = stored.decision
        if stored.is_carried_out:
            return report_champion(connection, decision.kind, is_new=False)
        if stored.is_expired:
            raise PermanentError(f"decision {decision_id} is older than a day: confirm it again on the page Models")
    if decision.run_id is not None:
        return promote_candidate(connections, decision.run_id, decision.kind, decision.decided_by, decision_id)
    return roll_back(
        connections, decision.kind, decision.to_version_id, decision.decided_by, decision.reason, decision_id
    )
