"""Repair indexes and tables while searches and writers continue. Each function needs a connection in autocommit."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

RebuildReason = Literal["bloat", "growth", "recall"]


@dataclass(frozen=True)
class Rebuild:
    """A rebuild of an index."""

    index_name: str
    reason: RebuildReason
    bytes_before: int
    bytes_after: int
    seconds: float


def drop_unfinished_indexes(connection: Connection) -> tuple[str, ...]:
    """Drop the indexes that a killed rebuild or replacement left behind, and return their names."""
    statement = text("""
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = CAST('catalog' AS regnamespace)
          AND (NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' OR c.relname ~ '_hnsw_(new|old)$')
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
    reindex = text(f"REINDEX INDEX CONCURRENTLY catalog.{_quote(name)}")
    return record_rebuild(connection, name, reason, lambda: connection.execute(reindex))


def record_rebuild(connection: Connection, name: str, reason: RebuildReason, rebuild: Callable[[], object]) -> Rebuild:
    """Call ``rebuild``, and store that it rebuilt the index of this name."""
    read_size = text("SELECT pg_relation_size(CAST(:index AS regclass)), clock_timestamp()")
    parameters = {"index": f"catalog.{_quote(name)}"}
    before, started = connection.execute(read_size, parameters).one()
    rebuild()
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
