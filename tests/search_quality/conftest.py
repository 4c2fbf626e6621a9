"""A small catalog with a vector index and codes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sqlalchemy import Engine, make_url, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, store_text, unit_vectors
from fixtures.postgres import create_database, execute
from jobs.database.engine import create_database_engine
from jobs.database.spaces import EmbeddingSpace, read_space
from jobs.database.vector_codes import renew_vector_codes

IMAGES, DIMENSIONS = 1500, 16


@dataclass(frozen=True)
class IndexedCatalog:
    """Images in id order, two thirds dresses and a third hats, and a text."""

    engine: Engine
    space: EmbeddingSpace
    image_ids: np.ndarray
    vectors: np.ndarray
    is_hat: np.ndarray

    def run(self, *statements: str) -> None:
        """Run statements in a transaction, and count its changes in the statistics at once."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
            connection.execute(text("SELECT pg_stat_force_next_flush()"))


@dataclass(frozen=True)
class _Template:
    """The name of a filled database, which nobody is connected to, and what is in it."""

    database: str
    catalog: IndexedCatalog


@pytest.fixture(scope="session")
def filled_database(postgres_server: str, template_database: str) -> Iterator[_Template]:
    with create_database(postgres_server, template_database) as url:
        engine = create_database_engine(url)
        catalog = _fill(engine)
        engine.dispose()
        name = make_url(url).database
        assert name
        yield _Template(name, catalog)


@pytest.fixture
def catalog(postgres_server: str, filled_database: _Template) -> Iterator[IndexedCatalog]:
    with create_database(postgres_server, filled_database.database) as url:
        engine = create_database_engine(url)
        # The statistics of a database are not copied with it.
        execute(url, "ANALYZE")
        yield replace(filled_database.catalog, engine=engine)
        engine.dispose()


def _fill(engine: Engine) -> IndexedCatalog:
    vectors = unit_vectors(IMAGES, DIMENSIONS, clusters=10, seed=1)
    is_hat = np.arange(IMAGES) % 3 == 0
    with engine.begin() as connection:
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, DIMENSIONS)
        new = [
            NewImage(f"p{number}", "hat" if hat else "dress", vector.tolist())
            for number, (hat, vector) in enumerate(zip(is_hat, vectors, strict=True))
        ]
        image_ids = add_images(connection, new, space_id, classifier)
        renew_vector_codes(connection, space_id)
        store_text(connection, "red", str(vectors[3].tolist()), space_id)
        # Autovacuum must not repair what a test has damaged.
        connection.execute(text(f"ALTER TABLE catalog.image_embeddings_{space_id} SET (autovacuum_enabled = off)"))
        space = read_space(connection, space_id)
    return IndexedCatalog(engine, space, np.array(image_ids), vectors, is_hat)
