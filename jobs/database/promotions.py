"""Queries on promotions, rollbacks and switches: which version is the champion, and which one is live."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind
from jobs.database.records import read_record, read_records, text_with_json
from jobs.errors import RefusedError


@dataclass(frozen=True)
class NewPromotion:
    """A version to make the champion. ``evaluation_id`` is None for a rollback."""

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None
    evaluation_id: int | None
    promoted_by: str
    reason: str


@dataclass(frozen=True)
class Promotion:
    """A stored promotion."""

    promotion_id: int
    model_version_id: int
    replaced_version_id: int | None
    is_rollback: bool
    reason: str


def lock_promotions(connection: Connection) -> None:
    """Block other transactions that change a champion until this one ends. Readers are not blocked."""
    connection.execute(text("LOCK TABLE catalog.promotions IN SHARE ROW EXCLUSIVE MODE"))


def insert_promotion(connection: Connection, promotion: NewPromotion) -> int:
    """Append a promotion and return its id. Call it under `lock_promotions`."""
    promotion_id: int = connection.execute(
        text("""
            INSERT INTO catalog.promotions (kind, model_version_id, replaced_version_id, evaluation_id, promoted_by,
                                            reason)
            VALUES (:kind, :model_version_id, :replaced_version_id, :evaluation_id, :promoted_by, :reason)
            RETURNING promotion_id
        """),
        vars(promotion),
    ).scalar_one()
    return promotion_id


def find_rollback(connection: Connection, kind: ModelKind, model_version_id: int) -> str | None:
    """Return who rolled a version back and why, or None if nobody did or it was promoted again afterwards."""
    statement = text("""
        SELECT CASE WHEN p.model_version_id <> :version THEN p.promoted_by || ': ' || p.reason END
        FROM catalog.promotions p
        WHERE p.kind = :kind AND (p.model_version_id = :version
                                  OR (p.replaced_version_id = :version AND p.evaluation_id IS NULL))
        ORDER BY p.promotion_id DESC LIMIT 1
    """)
    words: str | None = connection.execute(statement, {"kind": kind, "version": model_version_id}).scalar()
    return words


def read_latest_promotion(connection: Connection, kind: ModelKind) -> Promotion | None:
    """Return the latest promotion of a kind, which made the champion, or None before the first."""
    statement = text("""
        SELECT *, evaluation_id IS NULL AND replaced_version_id IS NOT NULL AS is_rollback
        FROM catalog.promotions WHERE kind = :kind ORDER BY promotion_id DESC LIMIT 1
    """)
    return read_record(connection.execute(statement, {"kind": kind}), Promotion)


@dataclass(frozen=True)
class PastPromotion:
    """A promotion or rollback. ``live_since`` is None if the version never became live."""

    promotion_id: int
    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None
    is_rollback: bool
    promoted_by: str
    reason: str
    promoted_at: datetime
    live_since: datetime | None


def read_promotion_history(connection: Connection, size: int) -> tuple[PastPromotion, ...]:
    """Return the latest promotions, newest first."""
    rows = connection.execute(
        text("""
            SELECT p.*, p.evaluation_id IS NULL AND p.replaced_version_id IS NOT NULL AS is_rollback,
                   (SELECT min(s.switched_at) FROM catalog.switches s
                    WHERE s.model_version_id = p.model_version_id AND s.switched_at >= p.promoted_at) AS live_since
            FROM catalog.promotions p ORDER BY p.promotion_id DESC LIMIT :size
        """),
        {"size": size},
    )
    return tuple(read_records(rows, PastPromotion))


@dataclass(frozen=True)
class Champion:
    """The champion and the live version of a kind. The champion's evaluation passed ``gates_passed`` of ``gates``."""

    kind: ModelKind
    model_version_id: int
    live_version_id: int | None
    promoted_at: datetime
    promoted_by: str
    gates_passed: int
    gates: int


def list_champions(connection: Connection) -> tuple[Champion, ...]:
    """Return the champion of each kind that has one."""
    rows = connection.execute(
        text("""
            SELECT c.kind, c.model_version_id, l.model_version_id AS live_version_id, c.promoted_at, c.promoted_by,
                   g.gates_passed, g.gates
            FROM catalog.champion_models c
            LEFT JOIN catalog.live_models l USING (kind)
            CROSS JOIN LATERAL (
                SELECT evaluation_id FROM catalog.promotions p
                WHERE p.kind = c.kind ORDER BY promotion_id DESC LIMIT 1
            ) p
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE verdict = 'passed') AS gates_passed, count(*) AS gates
                FROM catalog.gate_decisions d
                WHERE d.evaluation_id = p.evaluation_id AND d.decided_at =
                    (SELECT max(decided_at) FROM catalog.gate_decisions WHERE evaluation_id = p.evaluation_id)
            ) g
            ORDER BY c.kind
        """)
    )
    return tuple(read_records(rows, Champion))


def list_stuck_retags(connection: Connection) -> tuple[str, ...]:
    """Describe each champion that is not live although no chunk was retagged for it in the last day.

    A champion without a live version of its kind is left out: the next ingest run makes it live.
    """
    rows = connection.execute(
        text("""
            SELECT format('%s %s was promoted on %s, but %s %s is still live, and nothing was retagged in the last day',
                          c.kind, c.model_version_id, to_char(c.promoted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
                          l.kind, l.model_version_id)
            FROM catalog.champion_models c JOIN catalog.live_models l USING (kind)
            WHERE c.model_version_id <> l.model_version_id AND c.promoted_at < now() - interval '1 day'
              AND NOT EXISTS (
                  SELECT FROM catalog.tagging_runs r JOIN catalog.run_chunks k USING (run_id)
                  WHERE r.purpose = 'retag' AND r.started_at >= c.promoted_at
                    AND k.committed_at > now() - interval '1 day'
              )
            ORDER BY c.kind
        """)
    )
    return tuple(rows.scalars())


@dataclass(frozen=True)
class ChampionDecision:
    """A decision to promote the candidate of ``run_id`` or to roll back to ``to_version_id``. The other one is None."""

    kind: ModelKind
    run_id: str | None
    to_version_id: int | None
    reason: str
    decided_by: str


@dataclass(frozen=True)
class StoredDecision:
    """A decision, whether it was carried out, and whether it has expired."""

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
    """Return a decision. It expires after a day, because the reasons for it may have changed by then."""
    statement = text("""
        SELECT *, done_at IS NOT NULL AS is_done, decided_at < now() - interval '1 day' AS is_expired
        FROM catalog.champion_decisions WHERE decision_id = :decision_id
    """)
    return read_record(connection.execute(statement, {"decision_id": decision_id}), StoredDecision)


def close_decision(connection: Connection, decision_id: int) -> None:
    """Mark a decision as carried out. Call it in the transaction that does so, under `lock_promotions`.

    Raises:
        RefusedError: it was already carried out.
    """
    statement = text("""
        UPDATE catalog.champion_decisions SET done_at = clock_timestamp()
        WHERE decision_id = :decision_id AND done_at IS NULL
    """)
    if connection.execute(statement, {"decision_id": decision_id}).rowcount != 1:
        raise RefusedError(f"decision {decision_id} was carried out before")


@dataclass(frozen=True)
class Switch:
    """The version that becomes live and the version that it replaces, which is None for the first of a kind."""

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None


def insert_switch(connection: Connection, switch: Switch, report: Mapping[str, Any] | None = None) -> None:
    """Make a version live as soon as the caller commits. For an encoder, call `make_space_live` instead."""
    statement = """
        INSERT INTO catalog.switches (kind, model_version_id, replaced_version_id, report)
        VALUES (:kind, :model_version_id, :replaced_version_id, :report)
    """
    connection.execute(text_with_json(statement, "report"), {**vars(switch), "report": report or {}})


def find_latest_other(connection: Connection, kind: ModelKind, model_version_id: int) -> int | None:
    """Return the version, other than this one, that was live last, or None."""
    statement = text("""
        SELECT model_version_id FROM catalog.switches WHERE kind = :kind AND model_version_id <> :version
        ORDER BY switch_id DESC LIMIT 1
    """)
    return connection.execute(statement, {"kind": kind, "version": model_version_id}).scalar_one_or_none()


def list_once_live(connection: Connection, kind: ModelKind) -> list[int]:
    """List the versions of a kind that were ever live, the latest first."""
    statement = text("""
        SELECT model_version_id FROM catalog.switches WHERE kind = :kind
        GROUP BY model_version_id ORDER BY max(switch_id) DESC
    """)
    return list(connection.execute(statement, {"kind": kind}).scalars())


def was_live(connection: Connection, kind: ModelKind, model_version_id: int) -> bool:
    """Return whether a version was ever live."""
    statement = text("SELECT EXISTS (SELECT FROM catalog.switches WHERE kind = :kind AND model_version_id = :version)")
    return bool(connection.scalar(statement, {"kind": kind, "version": model_version_id}))
