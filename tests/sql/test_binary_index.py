"""Search in a space whose index contains only the signs of its vectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, open_live_space, promote_model, unit_vectors
from fixtures.postgres import create_database
from jobs.database import vector_indexes
from jobs.database.engine import create_database_engine
from jobs.database.spaces import EmbeddingSpace, find_neighbors, read_live_space
from tests.sql.questions import find_nearest

IMAGES, DIMENSIONS = 3000, 64


@dataclass(frozen=True)
class BinaryCatalog:
    """Images with one product each, in id order. Their space has a binary index."""

    connection: Connection
    space: EmbeddingSpace
    image_ids: np.ndarray
    vectors: np.ndarray

    def rank(self, vector: np.ndarray) -> list[int]:
        """Return the ids of all images, nearest first, by comparing with each."""
        return [int(self.image_ids[place]) for place in np.argsort(-(self.vectors @ vector), kind="stable")]


@pytest.fixture(scope="module")
def filled_catalog(postgres_server: str, template_database: str) -> Iterator[BinaryCatalog]:
    vectors = unit_vectors(IMAGES, DIMENSIONS, clusters=30, seed=1)
    with create_database(postgres_server, template_database) as url:
        engine = create_database_engine(url)
        with pytest.MonkeyPatch.context() as patch, engine.begin() as connection:
            patch.setattr(vector_indexes, "MAX_VECTOR_ROWS", -1)
            classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, DIMENSIONS)
            images = [NewImage(f"p{number}", vector=vector.tolist()) for number, vector in enumerate(vectors)]
            image_ids = np.array(add_images(connection, images, space_id, classifier))
        with engine.connect() as connection:
            connection.execute(text("ANALYZE"))
            connection.commit()
            yield BinaryCatalog(connection, read_live_space(connection), image_ids, vectors)
        engine.dispose()


@pytest.fixture
def catalog(filled_catalog: BinaryCatalog) -> Iterator[BinaryCatalog]:
    """The filled catalog in a transaction that is rolled back and has to use an index."""
    with filled_catalog.connection.begin_nested() as savepoint:
        filled_catalog.connection.execute(text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"))
        yield filled_catalog
        savepoint.rollback()


def find(catalog: BinaryCatalog, vector: np.ndarray, k: int) -> list[int]:
    return [row.image_id for row in find_nearest(catalog.connection, vector, catalog.space.space_id, k, None)]


def test_nearly_all_true_neighbors_are_found_and_ranked_by_their_vectors(catalog: BinaryCatalog) -> None:
    found = 0
    for query in unit_vectors(20, DIMENSIONS, clusters=30, seed=4):
        rows = find_nearest(catalog.connection, query, catalog.space.space_id, 10, None)
        exact = [float(catalog.vectors[np.flatnonzero(catalog.image_ids == row.image_id)[0]] @ query) for row in rows]
        assert [row.similarity for row in rows] == pytest.approx(exact, abs=0.01)
        assert exact == pytest.approx(sorted(exact, reverse=True), abs=0.01)
        found += len({row.image_id for row in rows} & set(catalog.rank(query)[:10]))
    assert found / 200 > 0.95
