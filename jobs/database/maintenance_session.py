"""Open sessions that rebuild indexes and rewrite tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from jobs.database.vector_indexes import MAINTENANCE_BYTES
from jobs.errors import RetryableError

VACUUM_DELAY = "2ms"
"""The delay of autovacuum. A VACUUM has none by default, and would slow down searches."""


@contextmanager
def open_maintenance(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in autocommit for maintenance. Only one process at a time can have it.

    Raises:
        RetryableError: another process has it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Closed afterwards instead of returned to the pool, which ends its lock and its settings.
        connection.detach()
        if not connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended('catalog care', 0))")):
            raise RetryableError(
                "another `catalog care` or `catalog forget` is running, or was killed seconds ago: run the same "
                "command later"
            )
        # A parallel build would take the cores that searches need, and allocate all of its memory in /dev/shm.
        connection.execute(text("SET max_parallel_maintenance_workers = 0"))
        memory = text("""
            SELECT set_config('maintenance_work_mem', greatest(:bytes / 1024, setting::bigint) || 'kB', false)
            FROM pg_settings WHERE name = 'maintenance_work_mem'
        """)
        connection.execute(memory, {"bytes": MAINTENANCE_BYTES[1]})
        connection.execute(text(f"SET vacuum_cost_delay = '{VACUUM_DELAY}'"))
        yield connection
