"""Replace the index of a space that has grown large, while searches and writers use it."""

import logging

from sqlalchemy import Connection

from jobs.database.index_repairs import Rebuild, record_rebuild
from jobs.database.spaces import EmbeddingSpace, has_space_index
from jobs.database.vector_indexes import BINARY_INDEX, format_index, has_outgrown_index

log = logging.getLogger(__name__)


def replace_outgrown_index(connection: Connection, space: EmbeddingSpace) -> tuple[Rebuild, ...]:
    """Replace an index of vectors that has become too large by a binary index, if it has. Return the replacement.

    It is built next to the present index and blocks nobody, but waits until transactions end that are older than it.
    The connection is one for maintenance.
    """
    if not has_space_index(connection, space.space_id) or not has_outgrown_index(connection, space.space_id):
        return ()
    log.info("space %d has outgrown its index: building a binary index", space.space_id)
    return (record_rebuild(connection, space.index, "growth", lambda: _replace_index(connection, space)),)


def _replace_index(connection: Connection, space: EmbeddingSpace) -> None:
    # If the job is killed, `drop_unfinished_indexes` knows these names.
    new, old = f"{space.index}_new", f"{space.index}_old"
    connection.exec_driver_sql(format_index(new, space.partition, BINARY_INDEX, space.dimensions, concurrently=True))
    # One transaction. Renaming blocks neither searches nor writers, as dropping the old index first would.
    connection.exec_driver_sql(
        f"ALTER INDEX catalog.{space.index} RENAME TO {old}; ALTER INDEX catalog.{new} RENAME TO {space.index}"
    )
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY catalog.{old}")
