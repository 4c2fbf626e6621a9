"""Measure the models of ``make demo`` on its local stack, and compare them with their targets.

    python -m benchmarks.scenarios.demo_quality

Exits with 1 if a target is missed. A search for a name such as "Striped Dress Red" succeeds if the first result has
this name, because products of the sample catalog with the same name have the same category, color and pattern.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

from sqlalchemy import Connection, text

from demo.demo import TEXT_QUERY
from jobs.connections import connect
from jobs.search.by_text import find_products_by_text
from jobs.search.encoders import load_text_embedder
from jobs.settings import load_settings

MIN_ACCURACY = 0.95
MIN_NAMES_FOUND = 0.70
MIN_DRESSES = 3


@dataclass(frozen=True)
class DemoQuality:
    """The figures of the champions. Shares are between 0 and 1."""

    test_images: int
    classifier_accuracy: float
    product_names: int
    names_found: float
    first_result: str
    dresses_in_top_5: int

    def list_missed(self) -> list[str]:
        """Return the missed targets."""
        targets = {
            f"classifier accuracy at least {MIN_ACCURACY}": self.classifier_accuracy >= MIN_ACCURACY,
            f"names found at least {MIN_NAMES_FOUND}": self.names_found >= MIN_NAMES_FOUND,
            f"first result for {TEXT_QUERY!r} is one": self.first_result == "Striped Dress Red",
            f"at least {MIN_DRESSES} dresses in its top 5": self.dresses_in_top_5 >= MIN_DRESSES,
        }
        return [target for target, is_met in targets.items() if not is_met]


def measure_demo() -> DemoQuality:
    """Read the classifier's evaluation, and search for every product by its name."""
    with connect(load_settings()) as connections:
        load_encoder = cache(partial(load_text_embedder, connections))
        with connections.engine.connect() as connection:
            accuracy, test_images = _read_accuracy(connection)
            names = _list_names(connection)
        firsts = [find_products_by_text(connections.engine, load_encoder, name, 1, None)[0] for name in names]
        hits = find_products_by_text(connections.engine, load_encoder, TEXT_QUERY, 5, None)
    found = sum(hit.display_name == name for hit, name in zip(firsts, names, strict=True))
    return DemoQuality(
        test_images,
        accuracy,
        len(names),
        found / len(names),
        hits[0].display_name or "",
        sum((hit.display_name or "").split()[-2:-1] == ["Dress"] for hit in hits),
    )


def _read_accuracy(connection: Connection) -> tuple[float, int]:
    statement = text("""
        SELECT e.metrics #>> '{classifier,correct}', e.metrics #>> '{classifier,images}' FROM catalog.evaluations e
        JOIN catalog.champion_models c ON c.model_version_id = e.candidate_version_id
        WHERE c.kind = 'classifier' ORDER BY evaluation_id DESC LIMIT 1
    """)
    correct, images = map(int, connection.execute(statement).one())
    return correct / images, images


def _list_names(connection: Connection) -> Sequence[str]:
    """Return the names of the products that have a vector."""
    statement = text("""
        SELECT DISTINCT p.display_name FROM catalog.products p
        JOIN catalog.images i USING (product_id) JOIN catalog.image_embeddings USING (image_id)
        WHERE p.display_name IS NOT NULL AND i.deleted_at IS NULL ORDER BY 1
    """)
    return list(connection.execute(statement).scalars())


def main() -> None:
    """Print the figures and the missed targets."""
    quality = measure_demo()
    missed = quality.list_missed()
    print(json.dumps(asdict(quality) | {"missed": missed}))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
