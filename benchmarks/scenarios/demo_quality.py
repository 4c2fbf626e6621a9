"""Measure what the models of ``make demo`` are worth, on the local stack that it leaves, against its bars.

    python -m benchmarks.scenarios.demo_quality

Ends with 1 if a bar is missed. A name such as "Striped Dress Red" is answered well by a product of the same category,
colour and pattern, which in the sample catalog is one of the same name.
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
MIN_RIGHT_NAMES = 0.70
MIN_DRESSES = 3


@dataclass(frozen=True)
class DemoQuality:
    """The figures of the champions; shares are from 0 to 1."""

    test_photos: int
    classifier_accuracy: float
    product_names: int
    names_answered_right: float
    first_answer: str
    dresses_in_top_5: int

    def list_missed(self) -> list[str]:
        """The bars that are missed."""
        kept = {
            f"classifier accuracy at least {MIN_ACCURACY}": self.classifier_accuracy >= MIN_ACCURACY,
            f"names answered right at least {MIN_RIGHT_NAMES}": self.names_answered_right >= MIN_RIGHT_NAMES,
            f"{TEXT_QUERY!r} finds one first": self.first_answer == "Striped Dress Red",
            f"at least {MIN_DRESSES} dresses in its top 5": self.dresses_in_top_5 >= MIN_DRESSES,
        }
        return [bar for bar, is_kept in kept.items() if not is_kept]


def measure_demo() -> DemoQuality:
    """Read the classifier's evaluation, and ask for every product by its name."""
    with connect(load_settings()) as connections:
        load_encoder = cache(partial(load_text_embedder, connections))
        with connections.engine.connect() as connection:
            accuracy, test_photos = _read_accuracy(connection)
            names = _list_names(connection)
        firsts = [find_products_by_text(connections.engine, load_encoder, name, 1, None)[0] for name in names]
        hits = find_products_by_text(connections.engine, load_encoder, TEXT_QUERY, 5, None)
    right = sum(hit.display_name == name for hit, name in zip(firsts, names, strict=True))
    return DemoQuality(
        test_photos,
        accuracy,
        len(names),
        right / len(names),
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
    """The names of the products that have a vector."""
    statement = text("""
        SELECT DISTINCT p.display_name FROM catalog.products p
        JOIN catalog.images i USING (product_id) JOIN catalog.image_embeddings USING (image_id)
        WHERE p.display_name IS NOT NULL AND i.deleted_at IS NULL ORDER BY 1
    """)
    return list(connection.execute(statement).scalars())


def main() -> None:
    """Print the figures and the bars that are missed."""
    quality = measure_demo()
    missed = quality.list_missed()
    print(json.dumps(asdict(quality) | {"missed": missed}))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
