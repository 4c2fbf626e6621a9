"""Query the catalog continuously in a thread, and record the results."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import create_engine, exc, text

from fixtures.shop import Shop
from jobs.database.engine import driver_url

QUESTION = """
    SELECT
        (SELECT count(*) FROM catalog.current_image_tags) AS images,
        (SELECT count(*) FROM catalog.current_image_tags WHERE source = 'human') AS labeled,
        (SELECT array_agg(DISTINCT classifier_version_id) FROM catalog.current_image_tags WHERE source = 'model')
            AS image_classifiers,
        (SELECT count(*) FROM catalog.current_product_tags) AS products,
        (SELECT array_agg(DISTINCT classifier_version_id) FROM catalog.current_product_tags WHERE source = 'model')
            AS product_classifiers,
        (SELECT count(*) FROM catalog.search_products(:words, 1000)) AS found,
        (SELECT count(*) FROM catalog.similar_images((SELECT min(image_id) FROM catalog.images), 1000)) AS similar,
        catalog.live_space() AS space
"""


@dataclass(frozen=True)
class Answer:
    """The result of one statement, and therefore of a single snapshot of the catalog."""

    images: int
    labeled: int
    image_classifiers: list[int]
    products: int
    product_classifiers: list[int]
    found: int
    similar: int
    space: int


@dataclass
class Watch:
    """All results in order, and all exceptions."""

    answers: list[Answer] = field(default_factory=list)
    errors: list[exc.DBAPIError] = field(default_factory=list)

    def assert_whole_and_unmixed(self) -> None:
        """Check that no query failed, that counts never decreased, and that no result mixed two classifiers."""
        assert self.errors == []
        assert len(self.answers) > 3, "too few queries to compare"
        for before, after in zip(self.answers, self.answers[1:], strict=False):
            for name in ("images", "labeled", "products", "found", "similar"):
                assert getattr(after, name) >= getattr(before, name), (name, before, after)
        for answer in self.answers:
            assert len(answer.image_classifiers) == 1, answer
            assert answer.product_classifiers == answer.image_classifiers, answer
        classifiers = [answer.image_classifiers[0] for answer in self.answers]
        assert classifiers == sorted(classifiers), "answers went back to the models before"


@contextmanager
def watch_catalog(shop: Shop, words: str) -> Iterator[Watch]:
    """Query in a thread until the end of the block, and once more at the end. A query that waits for a lock fails."""
    watch, stop = Watch(), threading.Event()
    engine = create_engine(driver_url(shop.environment["CATALOG_DATABASE_URL"]), isolation_level="AUTOCOMMIT")

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text("SET lock_timeout = '1s'"))
            is_last = False
            while not is_last:
                is_last = stop.is_set()
                try:
                    row = connection.execute(text(QUESTION), {"words": words}).one()
                except exc.DBAPIError as error:
                    watch.errors.append(error)
                    return
                watch.answers.append(Answer(**row._mapping))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
        engine.dispose()
