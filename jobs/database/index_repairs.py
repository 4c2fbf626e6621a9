"""Repair indexes and tables while searches and writers continue. Each function needs a connection in autocommit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Engine, text

from jobs.database.vector_indexes import MAINTENANCE_BYTES
from jobs.errors import RetryableError

RebuildReason = Literal["bloat", "recall"]
VACUUM_DELAY = "2ms"
"""The delay of autovacuum. A VACUUM has none by default, and would slow down searches."""


@dataclass(frozen=True)
class Rebuild:
    """A rebuild of an index."""

    index_name: str
    reason: RebuildReason
    bytes_before: int
    bytes_after: int
    seconds: float


@contextmanager
def open_repairs(engine: Engine) -> Iterator[Connection]:
    """Yield a connection for repairs. Only one process at a time can have it.

    Raises:
        RetryableError: another process has it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Closed afterwards instead of returned to the pool, which ends its lock and its settings.
        connection.detach()
        if not connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended('catalog care', 0))")):
            raise RetryableError(
                "another `catalog care` is running, or was killed seconds ago: run the same command later"
            )
        # A parallel build would take the cores that searches need.
        connection.execute(text("SET max_parallel_maintenance_workers = 0"))
        connection.execute(text(f"SET maintenance_work_mem = '{MAINTENANCE_BYTES[1] // 1024}kB'"))
        connection.execute(text(f"SET vacuum_cost_delay = '{VACUUM_DELAY}'"))
        yield connection


def drop_unfinished_indexes(connection: Connection) -> tuple[str, ...]:
    """Drop the indexes that a killed rebuild left behind, and return their names."""
    statement = text("""
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = CAST('catalog' AS regnamespace) AND NOT i.indisvalid
          AND c.relname ~ '_cc(new|old)[0-9]*$'
          -- One that is being built is not valid either.
          AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
        ORDER BY c.relname
    """)
    names = tuple(connection.execute(statement).scalars())
    for name in names:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS catalog.{_quote(name)}"))
    return names


def rebuild_index(connection: Connection, name: str, reason: RebuildReason) -> Rebuild:
    """Build an index again next to the old one, and then replace it. Reads and writes continue, with the old one."""
    read_size = text("SELECT pg_relation_size(CAST(:index AS regclass)), clock_timestamp()")
    parameters = {"index": f"catalog.{_quote(name)}"}
    before, started = connection.execute(read_size, parameters).one()
    connection.execute(text(f"REINDEX INDEX CONCURRENTLY catalog.{_quote(name)}"))
    after, finished = connection.execute(read_size, parameters).one()
    insert = text("""
        INSERT INTO catalog.index_rebuilds (index_name, reason, bytes_before, bytes_after, started_at, finished_at)
        VALUES (:name, :reason, :before, :after, :started, :finished)
    """)
    values = {"name": name, "reason": reason, "before": before, "after": after}
    connection.execute(insert, values | {"started": started, "finished": finished})
    return Rebuild(name, reason, before, after, round((finished - started).total_seconds(), 1))


def find_last_rebuild(connection: Connection, name: str) -> datetime | None:
    """Return when an index was last rebuilt."""
    statement = text("SELECT max(finished_at) FROM catalog.index_rebuilds WHERE index_name = :name")
    rebuilt_at: datetime | None = connection.execute(statement, {"name": name}).scalar_one()
    return rebuilt_at


def vacuum_table(connection: Connection, name: str) -> None:
    """Remove dead rows, and renew the planner's statistics."""
    connection.execute(text(f"VACUUM (ANALYZE) catalog.{_quote(name)}"))


def analyze_table(connection: Connection, name: str) -> None:
    """Renew the planner's statistics."""
    connection.execute(text(f"ANALYZE catalog.{_quote(name)}"))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
