"""Catalogs for queries: an empty one to fill, and a large one to search."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    open_live_space,
    promote_model,
    round_to_half,
    tag_products,
    unit_vectors,
)
from fixtures.postgres import create_database
from jobs.database.engine import create_database_engine

IMAGES, DIMENSIONS = 4000, 16


@dataclass(frozen=True)
class Models:
    """The champions of a test's catalog, and its live space of three dimensions."""

    classifier: int
    space_id: int


@dataclass(frozen=True)
class LargeCatalog:
    """Images in id order: two images for each product; every category belongs to whole products.

    1 % of the images are rare and lie opposite to `far_vector`, one product in a thousand is unique.
    """

    engine: Engine
    space_id: int
    image_ids: np.ndarray
    vectors: np.ndarray
    products: np.ndarray
    categories: np.ndarray
    far_vector: np.ndarray

    def rank(self, vector: np.ndarray, category: str | None = None) -> list[int]:
        """Return the ids of all images, or of a category, nearest first, by comparing with each."""
        similarities = self.vectors @ vector / np.linalg.norm(self.vectors, axis=1)
        order = np.argsort(-similarities, kind="stable")
        return [int(self.image_ids[i]) for i in order if category in (None, self.categories[i])]


@pytest.fixture
def models(connection: Connection) -> Models:
    """Champions, and a live space of three dimensions."""
    return Models(promote_model(connection, "classifier"), open_live_space(connection, 3))


@pytest.fixture(scope="session")
def large_catalog(postgres_server: str, template_database: str) -> Iterator[LargeCatalog]:
    """A catalog with an HNSW index, shared by all tests of a process: they roll back what they change."""
    with create_database(postgres_server, template_database) as url:
        engine = create_database_engine(url)
        yield _fill(engine)
        engine.dispose()


@pytest.fixture
def large_connection(large_catalog: LargeCatalog) -> Iterator[Connection]:
    """A transaction on the large catalog, rolled back."""
    with large_catalog.engine.connect() as connection:
        yield connection


def _fill(engine: Engine) -> LargeCatalog:
    vectors = unit_vectors(IMAGES, DIMENSIONS, clusters=20, seed=1)
    numbers = np.arange(IMAGES) // 2
    categories = np.array(["common", "other", "third"], dtype=object)[numbers % 3]
    categories[numbers % 100 == 7] = "rare"
    categories[numbers % 1000 == 13] = "unique"
    far_vector = vectors[0]
    is_rare = categories == "rare"
    opposite = -far_vector + 0.05 * np.random.default_rng(2).normal(size=(is_rare.sum(), DIMENSIONS))
    vectors[is_rare] = round_to_half(opposite)
    products = np.array([f"p{number:04}" for number in numbers])
    with engine.begin() as connection:
        classifier = promote_model(connection, "classifier")
        space_id = open_live_space(connection, DIMENSIONS)
        images = [
            NewImage(product, category, vector.tolist())
            for product, category, vector in zip(products, categories, vectors, strict=True)
        ]
        image_ids = add_images(connection, images, space_id, classifier)
        tag_products(connection, classifier, dict(zip(products.tolist(), categories.tolist(), strict=True)))
        connection.execute(text("ANALYZE"))
    return LargeCatalog(engine, space_id, np.array(image_ids), vectors, products, categories, far_vector)
