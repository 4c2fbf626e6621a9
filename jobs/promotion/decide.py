"""Carry out what a person decided on the page "Models"."""

from jobs.connections import Connections
from jobs.database.champion_decisions import read_decision
from jobs.database.model_versions import read_champion
from jobs.errors import PermanentError
from jobs.promotion.promote import PromotionReport, promote_candidate, report_champion
from jobs.promotion.rollback import roll_back


def carry_out_decision(connections: Connections, decision_id: int) -> PromotionReport:
    """Promote or roll back, once: repeated, this only finishes a rollback that was killed after its switch.

    Raises:
        PermanentError: the decision does not exist, is older than a day, or cannot be carried out.
    """
    with connections.engine.connect() as connection:
        stored = read_decision(connection, decision_id)
        if stored is None:
            raise PermanentError(
                f"decision {decision_id} does not exist: promotions and rollbacks are confirmed on the page Models, by "
                "users who have the right to promote"
            )
        decision = stored.decision
        champion = read_champion(connection, decision.kind)
        if stored.is_done and (champion is None or champion.model_version_id != decision.to_version_id):
            return report_champion(connection, decision.kind, is_new=False)
        if stored.is_expired and not stored.is_done:
            raise PermanentError(f"decision {decision_id} is older than a day: confirm it again on the page Models")
    open_id = None if stored.is_done else decision_id
    if decision.run_id is not None:
        return promote_candidate(connections, decision.run_id, decision.kind, decision.decided_by, open_id)
    return roll_back(connections, decision.kind, decision.to_version_id, decision.decided_by, decision.reason, open_id)
