"""Care for indexes and tables: drop leftovers, rebuild, vacuum and analyze, whatever is needed."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from jobs.database.index_growth import replace_outgrown_index
from jobs.database.index_health import IndexHealth, list_btrees, list_tables, measure_vector_index
from jobs.database.index_repairs import (
    Rebuild,
    RebuildReason,
    analyze_table,
    drop_unfinished_indexes,
    find_last_rebuild,
    rebuild_index,
    vacuum_table,
)
from jobs.database.maintenance_session import open_maintenance
from jobs.database.recall_checks import list_checks
from jobs.database.spaces import EmbeddingSpace, find_live_space, read_space
from jobs.progress import Progress, open_progress, show_progress
from jobs.search_quality.recall_check import RecallReport, check_recall

log = logging.getLogger(__name__)

HNSW_BLOAT, BTREE_BLOAT = 1.5, 2.0
"""An index that takes more than this times the space that it needs is rebuilt. Insertions alone leave the pages of a
B-tree at least half full, which is a factor of 1.8."""
DEAD_SHARE, MODIFIED_SHARE = 0.1, 0.1
"""A table with a larger share of dead rows is vacuumed, one with a larger share of changed rows analyzed."""
REBUILD_INTERVAL = timedelta(days=7)
"""An index is rebuilt at most this often: if that did not help, the next night would not either."""


@dataclass(frozen=True)
class CareReport:
    """What was done, by name of index or table. ``postponed`` are indexes that were rebuilt less than a week ago.

    ``recall`` is measured again after the index of the live space was rebuilt.
    """

    dropped: tuple[str, ...]
    rebuilt: tuple[Rebuild, ...]
    postponed: tuple[str, ...]
    vacuumed: tuple[str, ...]
    analyzed: tuple[str, ...]
    recall: RecallReport | None
    seconds: float


def care_for_indexes(engine: Engine, bound: float, run_id: str | None = None) -> CareReport:
    """Repair what crosses a bound. Searches and writers continue. After a kill, the next call starts over.

    Raises:
        RetryableError: another process is doing the same.
    """
    started = time.monotonic()
    task = open_progress(engine, run_id, "care") if run_id else show_progress("care")
    with task as progress, open_maintenance(engine) as connection:
        dropped = drop_unfinished_indexes(connection)
        progress.report("replacing an index that is too large")
        space_id = find_live_space(connection)
        space = None if space_id is None else read_space(connection, space_id)
        grown = replace_outgrown_index(connection, space) if space else ()
        # Before any VACUUM, which has less to do in a new index.
        vectors = _rebuild(connection, _find_due_vector_indexes(connection, space), progress)
        vacuumed, analyzed = _refresh_tables(connection, progress)
        # After it, because what a B-tree needs is estimated from the statistics.
        trees = _rebuild(connection, _find_due_btrees(connection), progress)
    recall = check_recall(engine, bound, run_id) if grown or vectors.done else None
    seconds = round(time.monotonic() - started, 1)
    report = CareReport(
        dropped,
        (*grown, *vectors.done, *trees.done),
        (*vectors.postponed, *trees.postponed),
        vacuumed,
        analyzed,
        recall,
        seconds,
    )
    log.info("care: %s", report)
    return report


@dataclass(frozen=True)
class _Rebuilds:
    done: tuple[Rebuild, ...]
    postponed: tuple[str, ...]


def _rebuild(connection: Connection, due: Sequence[tuple[IndexHealth, RebuildReason]], progress: Progress) -> _Rebuilds:
    """Rebuild indexes, except those that were rebuilt recently."""
    done, postponed = [], []
    for index, reason in progress.track("rebuilding indexes", due, len(due), unit="indexes"):
        rebuilt_at = find_last_rebuild(connection, index.name)
        if rebuilt_at is not None and datetime.now(UTC) - rebuilt_at < REBUILD_INTERVAL:
            postponed.append(index.name)
        else:
            done.append(rebuild_index(connection, index.name, reason))
    return _Rebuilds(tuple(done), tuple(postponed))


def _find_due_vector_indexes(
    connection: Connection, space: EmbeddingSpace | None
) -> list[tuple[IndexHealth, RebuildReason]]:
    """Return the index of the live space if it has to be rebuilt."""
    index = measure_vector_index(connection, space) if space else None
    if index is None:
        return []
    log.info("care: %s takes %.2f times the space that its rows need", index.name, index.bloat)
    if index.bloat > HNSW_BLOAT:
        return [(index, "bloat")]
    return [(index, "recall")] if _is_recall_low(connection, index.name) else []


def _find_due_btrees(connection: Connection) -> list[tuple[IndexHealth, RebuildReason]]:
    return [(tree, "bloat") for tree in list_btrees(connection) if tree.bloat > BTREE_BLOAT]


def _is_recall_low(connection: Connection, name: str) -> bool:
    """Return whether the latest check since the last rebuild is below its bound, without a category.

    Searches in a large category do not use the index, but codes, which every run updates.
    """
    latest = [one for one in list_checks(connection, 1) if one.check.category is None]
    rebuilt_at = find_last_rebuild(connection, name)
    return any(one.check.is_below and (rebuilt_at is None or one.checked_at > rebuilt_at) for one in latest)


def _refresh_tables(connection: Connection, progress: Progress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Vacuum or analyze tables, and return the names of both kinds."""
    tables = list_tables(connection)
    vacuumed = [table.name for table in tables if table.dead_share > DEAD_SHARE]
    stale = [table.name for table in tables if table.modified_share > MODIFIED_SHARE and table.name not in vacuumed]
    for name in progress.track("vacuuming tables", vacuumed, len(vacuumed), unit="tables"):
        vacuum_table(connection, name)
    for name in progress.track("analyzing tables", stale, len(stale), unit="tables"):
        analyze_table(connection, name)
    return tuple(vacuumed), tuple(stale)
