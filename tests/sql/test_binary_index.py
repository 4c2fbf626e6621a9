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
from jobs.database.migrations import SQL_FOLDER
from jobs.database.spaces import EmbeddingSpace, find_neighbors, read_live_space
from tests.sql.questions import find_nearest

IMAGES, DIMENSIONS = 2000, 64


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

    def count_scans(self) -> int:
        """Return how many scans of the index this transaction has begun."""
        statement = text("SELECT pg_stat_get_xact_numscans(CAST(:index AS regclass))")
        return int(self.connection.scalar(statement, {"index": f"catalog.{self.space.index}"}) or 0)


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
    noise = np.random.default_rng(4).normal(scale=0.05, size=(20, DIMENSIONS))
    queries = catalog.vectors[::100] + noise
    for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
        rows = find_nearest(catalog.connection, query, catalog.space.space_id, 10, None)
        exact = [float(catalog.vectors[np.flatnonzero(catalog.image_ids == row.image_id)[0]] @ query) for row in rows]
        assert [row.similarity for row in rows] == pytest.approx(exact, abs=0.01)
        assert exact == pytest.approx(sorted(exact, reverse=True), abs=0.01)
        found += len({row.image_id for row in rows} & set(catalog.rank(query)[:10]))
    assert found / 200 > 0.95


def test_a_query_far_from_all_images_adds_candidates(catalog: BinaryCatalog) -> None:
    """The signs say little about the order of images that are all far away."""
    random = np.random.default_rng(5)
    found, first_candidates = 0, 0
    for query in random.normal(size=(20, DIMENSIONS)):
        nearest = set(catalog.rank(query)[:10])
        signs = ((catalog.vectors > 0) != (query > 0)).sum(1)
        first_candidates += len(set(catalog.image_ids[np.argsort(signs)[:400]].tolist()) & nearest)
        found += len(set(find(catalog, query, 10)) & nearest)
    assert first_candidates / 200 < 0.9
    assert found / 200 > 0.95


def test_deleted_images_make_no_result_shorter(catalog: BinaryCatalog) -> None:
    query = catalog.vectors[0]
    nearest = catalog.rank(query)
    delete_images(catalog.connection, nearest[:1000])
    found = find(catalog, query, 10)
    assert len(found) == 10
    # A graph may not lead to every image.
    assert len(set(found) & set(nearest[1000:1010])) >= 8


def test_nearly_all_images_are_results_if_as_many_are_requested(catalog: BinaryCatalog) -> None:
    assert len(set(find(catalog, catalog.vectors[0], IMAGES + 1))) > 0.95 * IMAGES


def test_no_search_compares_all_images(catalog: BinaryCatalog) -> None:
    """Rather a short result. A comparison would read all vectors, and takes minutes at ten million."""
    definition = (SQL_FOLDER / "functions" / "images_by_binary_index.sql").read_text()
    assert "max_scan_tuples = 20000" in definition
    limited = definition.replace("max_scan_tuples = 20000", "max_scan_tuples = 1")
    catalog.connection.exec_driver_sql(limited, execution_options={"no_parameters": True})
    assert 0 < len(find(catalog, catalog.vectors[0], IMAGES)) < 0.8 * IMAGES


def test_neighbors_of_an_image_come_from_the_index(catalog: BinaryCatalog) -> None:
    image_id, vector = int(catalog.image_ids[7]), catalog.vectors[7]
    before = catalog.count_scans()
    found = find_neighbors(catalog.connection, catalog.space, image_id, 10)
    assert catalog.count_scans() > before
    assert found == [one for one in catalog.rank(vector) if one in found]
    assert len(set(found) & set(catalog.rank(vector)[1:11])) >= 8
