"""A space that grows large gets a binary index, while searches and writers continue."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, unit_vectors
from jobs.database import vector_indexes
from jobs.database.index_growth import replace_outgrown_index
from jobs.database.index_repairs import Rebuild, drop_unfinished_indexes
from jobs.database.maintenance_session import open_maintenance
from jobs.database.spaces import create_space_index, read_space
from jobs.database.vector_indexes import BINARY_INDEX, format_index, has_outgrown_index

DIMENSIONS, MAX_ROWS = 8, 20


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_indexes, "MAX_VECTOR_ROWS", MAX_ROWS)


@pytest.fixture
def space_id(engine: Engine) -> int:
    """A live space with as many images as an index of vectors may have."""
    with engine.begin() as connection:
        space_id = open_live_space(connection, DIMENSIONS)
        add_vectors(connection, space_id, MAX_ROWS)
    return space_id


def add_vectors(connection: Connection, space_id: int, images: int) -> None:
    classifier = promote_model(connection, "classifier")
    vectors = unit_vectors(images, DIMENSIONS, clusters=2, seed=1)
    new = [NewImage(f"p{number}", vector=vector.tolist()) for number, vector in enumerate(vectors)]
    add_images(connection, new, space_id, classifier)


def replace_index(engine: Engine, space_id: int) -> tuple[Rebuild, ...]:
    with open_maintenance(engine) as connection:
        drop_unfinished_indexes(connection)
        return replace_outgrown_index(connection, read_space(connection, space_id))


def read_indexes(engine: Engine, space_id: int) -> dict[str, str]:
    """Return the operator class of each HNSW index of the space, if it is valid."""
    statement = text("""
        SELECT c.relname, CASE WHEN i.indisvalid THEN o.opcname ELSE 'invalid' END AS form
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_opclass o ON o.oid = i.indclass[0]
        WHERE i.indrelid = to_regclass('catalog.image_embeddings_' || :space) AND c.relname ~ 'hnsw'
    """)
    with engine.connect() as connection:
        return {row.relname: row.form for row in connection.execute(statement, {"space": space_id})}


def test_a_space_gets_a_binary_index_when_it_has_outgrown_the_other(engine: Engine, space_id: int) -> None:
    name = f"image_embeddings_{space_id}_hnsw"
    assert replace_index(engine, space_id) == ()
    assert read_indexes(engine, space_id) == {name: "halfvec_cosine_ops"}
    with engine.begin() as connection:
        add_vectors(connection, space_id, 1)
        assert read_space(connection, space_id).index == name
        # Publishing changes nothing.
        create_space_index(connection, space_id)
    assert [(one.index_name, one.reason) for one in replace_index(engine, space_id)] == [(name, "growth")]
    assert read_indexes(engine, space_id) == {name: "bit_hamming_ops"}
    assert replace_index(engine, space_id) == ()
    with engine.connect() as connection:
        assert not has_outgrown_index(connection, space_id)


def test_a_new_space_gets_the_index_of_its_size(engine: Engine) -> None:
    with engine.begin() as connection:
        space_id = open_live_space(connection, DIMENSIONS)
        connection.exec_driver_sql(f"DROP INDEX catalog.image_embeddings_{space_id}_hnsw")
        add_vectors(connection, space_id, MAX_ROWS + 1)
    # Without an index there is nothing to replace: a run that is not published yet loads its vectors.
    assert replace_index(engine, space_id) == ()
    with engine.begin() as connection:
        create_space_index(connection, space_id)
    assert read_indexes(engine, space_id) == {f"image_embeddings_{space_id}_hnsw": "bit_hamming_ops"}


def test_writers_and_searches_continue_during_the_replacement(engine: Engine, space_id: int) -> None:
    """An open transaction keeps the replacement waiting, but nobody may wait for the replacement."""
    with engine.begin() as connection:
        add_vectors(connection, space_id, 1)
    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as writer:
            add_vectors(writer, space_id, 1)
            replacing = thread.submit(replace_index, engine, space_id)
            wait_for_lock(engine)
            with engine.begin() as other:
                other.execute(text("SET LOCAL lock_timeout = '5s'"))
                add_vectors(other, space_id, 1)
                statement = text("SELECT count(*) FROM catalog.nearest_images(CAST(:vector AS halfvec), :space, 50)")
                found = other.scalar(statement, {"vector": str([1] * DIMENSIONS), "space": space_id})
            assert not replacing.done()
        replacing.result(timeout=30)
    assert found == MAX_ROWS + 2
    assert read_indexes(engine, space_id) == {f"image_embeddings_{space_id}_hnsw": "bit_hamming_ops"}


def wait_for_lock(engine: Engine) -> None:
    """Wait until a session of this database waits for another one."""
    statement = text("""
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    """)
    deadline = time.monotonic() + 30
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(statement):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("suffix", ["new", "old"])
def test_what_a_killed_replacement_left_is_removed(engine: Engine, space_id: int, suffix: str) -> None:
    name = f"image_embeddings_{space_id}_hnsw"
    with engine.begin() as connection:
        connection.exec_driver_sql(format_index(f"{name}_{suffix}", f"image_embeddings_{space_id}", BINARY_INDEX, 8))
    assert replace_index(engine, space_id) == ()
    assert read_indexes(engine, space_id) == {name: "halfvec_cosine_ops"}
