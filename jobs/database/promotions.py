"""Promotions, rollbacks and switches: which version is the champion, and which one is live."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind, read_live_model
from jobs.database.spaces import find_space
from jobs.database.tagging_work import count_unanswered
from jobs.errors import RefusedError


@dataclass(frozen=True)
class NewPromotion:
    """A version to make the champion; ``evaluation_id`` is what it rests on, None for a rollback."""

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None
    evaluation_id: int | None
    promoted_by: str
    reason: str


@dataclass(frozen=True)
class Promotion:
    """A promotion as it stands in the table."""

    promotion_id: int
    model_version_id: int
    replaced_version_id: int | None
    is_rollback: bool
    reason: str


def lock_promotions(connection: Connection) -> None:
    """Let one transaction at a time decide who is the champion; those that only read go on."""
    connection.execute(text("LOCK TABLE catalog.promotions IN SHARE ROW EXCLUSIVE MODE"))


def insert_promotion(connection: Connection, promotion: NewPromotion) -> int:
    """Append a promotion and return its id; called under `lock_promotions`."""
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
    """Who went back from a version and why, or None if it was never left by a rollback, or promoted again since."""
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
    """The promotion that made the champion of a kind, or None before the first."""
    statement = text("""
        SELECT promotion_id, model_version_id, replaced_version_id,
            evaluation_id IS NULL AND replaced_version_id IS NOT NULL, reason
        FROM catalog.promotions
        WHERE kind = :kind ORDER BY promotion_id DESC LIMIT 1
    """)
    row = connection.execute(statement, {"kind": kind}).one_or_none()
    return Promotion(*row) if row else None


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
        RefusedError: it was carried out before.
    """
    statement = text("""
        UPDATE catalog.champion_decisions SET done_at = clock_timestamp()
        WHERE decision_id = :decision_id AND done_at IS NULL
    """)
    if connection.execute(statement, {"decision_id": decision_id}).rowcount != 1:
        raise RefusedError(f"decision {decision_id} was carried out before")


@dataclass(frozen=True)
class PastPromotion:
    """A promotion, or a rollback, which rests on no evaluation; ``live_since`` is None if it never answered."""

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
    """The latest promotions, the last first."""
    rows = connection.execute(
        text("""
            SELECT p.promotion_id, p.kind, p.model_version_id, p.replaced_version_id,
                   p.evaluation_id IS NULL AND p.replaced_version_id IS NOT NULL AS is_rollback,
                   p.promoted_by, p.reason, p.promoted_at,
                   (SELECT min(s.switched_at) FROM catalog.switches s
                    WHERE s.model_version_id = p.model_version_id AND s.switched_at >= p.promoted_at) AS live_since
            FROM catalog.promotions p ORDER BY p.promotion_id DESC LIMIT :size
        """),
        {"size": size},
    )
    return tuple(PastPromotion(**row._mapping) for row in rows)


@dataclass(frozen=True)
class PromotionReport:
    """Who is champion now.

    ``is_new`` is False where it was already, ``is_live`` says that answers come from it at once, and
    ``unanswered_images`` counts those in the bucket that it has not answered yet.
    """

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None
    promotion_id: int
    is_new: bool
    is_live: bool
    unanswered_images: int


def report_champion(connection: Connection, kind: ModelKind, *, is_new: bool) -> PromotionReport:
    """Describe the champion of a kind, which exists."""
    promotion, live = read_latest_promotion(connection, kind), read_live_model(connection, kind)
    assert promotion is not None
    version = promotion.model_version_id
    if kind == "classifier":
        unanswered = count_unanswered(connection, classifier=version, space=None)
    else:
        # No space has the number 0: what has none has answered nothing.
        unanswered = count_unanswered(connection, classifier=None, space=find_space(connection, version) or 0)
    return PromotionReport(
        kind=kind,
        model_version_id=version,
        replaced_version_id=promotion.replaced_version_id,
        promotion_id=promotion.promotion_id,
        is_new=is_new,
        is_live=live is not None and live.model_version_id == version,
        unanswered_images=unanswered,
    )
