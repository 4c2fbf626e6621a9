"""How the catalog is doing, in a few figures."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from jobs.database.images import count_roughly
from jobs.database.model_versions import ModelKind


@dataclass(frozen=True)
class ChampionFact:
    """The champion of a kind, and whether answers come from it yet; ``gates`` were passed, of ``all_gates``."""

    kind: ModelKind
    model_version_id: int
    live_version_id: int | None
    promoted_at: datetime
    promoted_by: str
    reason: str
    evaluation_id: int | None
    gates: int
    all_gates: int


@dataclass(frozen=True)
class FailureFact:
    """Images that could not be tagged for one reason; of some reasons time cures."""

    reason: str
    stage: str
    images: int
    time_cures: bool


@dataclass(frozen=True)
class CatalogFacts:
    """About how many rows there are, as the planner of Postgres last counted or guessed them."""

    images: int
    products: int


@dataclass(frozen=True)
class Overview:
    """The state of the catalog."""

    champions: tuple[ChampionFact, ...]
    failures: tuple[FailureFact, ...]
    catalog: CatalogFacts


def read_overview(connection: Connection) -> Overview:
    """Read it all."""
    champions = connection.execute(
        text("""
            SELECT c.kind, c.model_version_id, l.model_version_id AS live_version_id, c.promoted_at, c.promoted_by,
                   p.reason, p.evaluation_id, g.gates, g.all_gates
            FROM catalog.champion_models c
            LEFT JOIN catalog.live_models l USING (kind)
            CROSS JOIN LATERAL (
                SELECT reason, evaluation_id FROM catalog.promotions p
                WHERE p.kind = c.kind ORDER BY promotion_id DESC LIMIT 1
            ) p
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE verdict = 'passed') AS gates, count(*) AS all_gates
                FROM catalog.gate_decisions d
                WHERE d.evaluation_id = p.evaluation_id AND d.decided_at =
                    (SELECT max(decided_at) FROM catalog.gate_decisions WHERE evaluation_id = p.evaluation_id)
            ) g
            ORDER BY c.kind
        """)
    )
    failures = connection.execute(
        text("SELECT reason, stage, images, time_cures FROM catalog.item_failure_summary ORDER BY images DESC, reason")
    )
    return Overview(
        tuple(ChampionFact(**row._mapping) for row in champions),
        tuple(FailureFact(**row._mapping) for row in failures),
        CatalogFacts(count_roughly(connection, "images"), count_roughly(connection, "products")),
    )
