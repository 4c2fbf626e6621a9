"""Replace the index of a space that has grown large, while searches and writers use it."""

import logging

from sqlalchemy import Connection, Engine, text

from jobs.database.spaces import EmbeddingSpace, create_space_index, read_space
from jobs.database.vector_indexes import BINARY_INDEX, format_index, has_outgrown_index, set_build_memory

log = logging.getLogger(__name__)


def update_space_index(engine: Engine, space_id: int) -> None:
    """Index the vectors of a space, or replace an index of vectors that has become too large. Safe to repeat.

    A first index blocks writers of the space. A replacement is built next to the present index and blocks nobody, but
    waits until transactions end that are older than it.
    """
    with engine.begin() as connection:
        create_space_index(connection, space_id)
        space = read_space(connection, space_id)
        is_due = has_outgrown_index(connection, space_id) or _was_interrupted(connection, space)
    if is_due:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                _replace_index(connection, space)
            finally:
                connection.invalidate()  # Neither the lock nor the memory may return to the pool.


def _replace_index(connection: Connection, space: EmbeddingSpace) -> None:
    """Build the binary index and swap it in, unless another job is doing so."""
    lock = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    if not connection.scalar(lock, {"key": f"index of space {space.space_id}"}):
        return
    new, old = _name_temporary(space)
    _drop_indexes(connection, new, old)  # those that a killed job left
    if not has_outgrown_index(connection, space.space_id):
        return
    log.info("space %d has outgrown its index: building a binary index", space.space_id)
    rows: int = connection.execute(text(f"SELECT count(*) FROM catalog.{space.partition}")).scalar_one()  # noqa: S608
    set_build_memory(connection, BINARY_INDEX, rows, space.dimensions, is_local=False)
    connection.exec_driver_sql(format_index(new, space.partition, BINARY_INDEX, space.dimensions, concurrently=True))
    # One transaction. Renaming blocks neither searches nor writers, as dropping the old index first would.
    connection.exec_driver_sql(
        f"ALTER INDEX catalog.{space.index} RENAME TO {old}; ALTER INDEX catalog.{new} RENAME TO {space.index}"
    )
    _drop_indexes(connection, old)


def _name_temporary(space: EmbeddingSpace) -> tuple[str, str]:
    """Return the names of the index that is being built, and of the one that is no longer used."""
    return f"{space.index}_new", f"{space.index}_old"


def _was_interrupted(connection: Connection, space: EmbeddingSpace) -> bool:
    statement = text("SELECT coalesce(to_regclass('catalog.' || :new), to_regclass('catalog.' || :old)) IS NOT NULL")
    new, old = _name_temporary(space)
    return bool(connection.scalar(statement, {"new": new, "old": old}))


def _drop_indexes(connection: Connection, *names: str) -> None:
    for name in names:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS catalog.{name}")
