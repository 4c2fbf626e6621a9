"""Queries on ``promotions``: the champion of a kind is its latest."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind


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
