"""Query ``champion_decisions``: promotions and rollbacks that people confirmed, each carried out at most once."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError


@dataclass(frozen=True)
class ChampionDecision:
    """A promotion of the candidate of ``run_id``, or a rollback to ``to_version_id``; the other one is None."""

    kind: ModelKind
    run_id: str | None
    to_version_id: int | None
    reason: str
    decided_by: str


@dataclass(frozen=True)
class StoredDecision:
    """A decision, and whether it was or may still be carried out."""

    decision: ChampionDecision
    is_done: bool
    is_expired: bool


def insert_decision(connection: Connection, decision: ChampionDecision) -> int:
    """Store a decision and return its id."""
    decision_id: int = connection.execute(
        text("""
            INSERT INTO catalog.champion_decisions (kind, run_id, to_version_id, reason, decided_by)
            VALUES (:kind, :run_id, :to_version_id, :reason, :decided_by)
            RETURNING decision_id
        """),
        vars(decision),
    ).scalar_one()
    return decision_id


def read_decision(connection: Connection, decision_id: int) -> StoredDecision | None:
    """Read a decision; it expires after a day, when something else may hold than what was decided on."""
    row = connection.execute(
        text("""
            SELECT d.kind, d.run_id, d.to_version_id, d.reason, d.decided_by,
                d.done_at IS NOT NULL, d.decided_at < now() - interval '1 day'
            FROM catalog.champion_decisions d
            WHERE d.decision_id = :decision_id
        """),
        {"decision_id": decision_id},
    ).one_or_none()
    return StoredDecision(ChampionDecision(*row[:5]), *row[5:]) if row else None


def close_decision(connection: Connection, decision_id: int) -> None:
    """Mark a decision as carried out, in the transaction that does it and under `lock_promotions`.

    Raises:
        PermanentError: it was carried out before.
    """
    statement = text("""
        UPDATE catalog.champion_decisions SET done_at = clock_timestamp()
        WHERE decision_id = :decision_id AND done_at IS NULL
    """)
    if connection.execute(statement, {"decision_id": decision_id}).rowcount != 1:
        raise PermanentError(f"decision {decision_id} was carried out before")
