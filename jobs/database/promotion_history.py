"""Who made which version the champion, of both kinds, in the order of time."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind


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
