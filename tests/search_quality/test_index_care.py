"""Care sees planted damage, repairs it while others continue, and survives a kill."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import exc, text

from jobs.database import vector_indexes
from jobs.database.index_health import list_tables, measure_vector_index
from jobs.database.index_repairs import rebuild_index
from jobs.database.maintenance_session import open_maintenance
from jobs.database.recall_checks import insert_checks
from jobs.errors import RetryableError
from jobs.search_quality import index_care, recall_check
from jobs.search_quality.index_care import CareReport, care_for_indexes
from tests.search_quality.conftest import IndexedCatalog
from tests.search_quality.test_recall_check import CHECK

WAIT_SECONDS = 30


def damage(catalog: IndexedCatalog) -> None:
    """Delete 20 % of the vectors, and replace 30 %."""
    table = f"catalog.{catalog.space.partition}"
    catalog.run(
        f"DELETE FROM {table} WHERE image_id % 10 < 2",
        # Mixed with another vector: identical vectors would share a place in the index.
        f"UPDATE {table} n SET embedding = l2_normalize(n.embedding + o.embedding) FROM {table} o "
        "WHERE n.image_id % 10 IN (2, 3, 4) AND o.image_id = n.image_id + 5",
    )


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_check, "QUERIES", 40)


def care(catalog: IndexedCatalog) -> CareReport:
    return care_for_indexes(catalog.engine, 0.95)


def measure_bloat(catalog: IndexedCatalog) -> float:
    with catalog.engine.connect() as connection:
        index = measure_vector_index(connection, catalog.space)
    assert index is not None
    return index.bloat


def list_invalid(catalog: IndexedCatalog) -> list[str]:
    with catalog.engine.connect() as connection:
        statement = text("SELECT CAST(indexrelid AS regclass)::text FROM pg_index WHERE NOT indisvalid")
        return list(connection.execute(statement).scalars())


@contextmanager
def rebuild_waiting(catalog: IndexedCatalog) -> Iterator[int]:
    """Start a rebuild that waits for an open transaction. Yield the process id of its server process."""
    errors: list[BaseException] = []
    backend: list[int] = []

    def rebuild() -> None:
        try:
            with open_maintenance(catalog.engine) as connection:
                backend.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
                rebuild_index(connection, catalog.space.index, "bloat")
        except exc.DBAPIError as error:
            errors.append(error)

    with catalog.engine.connect() as writing:
        writing.execute(text(f"LOCK TABLE catalog.{catalog.space.partition} IN ROW EXCLUSIVE MODE"))
        thread = threading.Thread(target=rebuild)
        thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while not list_invalid(catalog) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield backend[0]
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert all("terminat" in str(error) for error in errors), errors


def test_care_repairs_deleted_and_replaced_vectors(catalog: IndexedCatalog) -> None:
    assert measure_bloat(catalog) < 1.2
    damage(catalog)
    assert measure_bloat(catalog) > 1.5
    report = care(catalog)
    # The primary key may be due too.
    assert (report.rebuilt[0].index_name, report.rebuilt[0].reason) == (catalog.space.index, "bloat")
    assert report.rebuilt[0].bytes_after < report.rebuilt[0].bytes_before
    assert catalog.space.partition in report.vacuumed
    assert measure_bloat(catalog) < 1.2
    assert report.recall is not None
    assert report.recall.checks[0].recall > 0.95
    with catalog.engine.connect() as connection:
        table = next(one for one in list_tables(connection) if one.name == catalog.space.partition)
    assert (table.dead, table.modified) == (0, 0)
    again = care(catalog)
    assert (again.rebuilt, again.vacuumed, again.recall) == ((), (), None)


def test_care_replaces_an_outgrown_index_and_keeps_the_new_one(
    catalog: IndexedCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_indexes, "MAX_VECTOR_ROWS", 100)
    report = care(catalog)
    assert [(one.index_name, one.reason) for one in report.rebuilt] == [(catalog.space.index, "growth")]
    assert report.recall is not None
    assert measure_bloat(catalog) < 1.2
    assert care(catalog).rebuilt == ()


def test_a_healthy_catalog_is_left_alone(catalog: IndexedCatalog) -> None:
    report = care(catalog)
    assert (report.dropped, report.rebuilt, report.postponed, report.vacuumed) == ((), (), (), ())
    assert report.recall is None


def test_stale_statistics_are_renewed(catalog: IndexedCatalog) -> None:
    catalog.run(
        "ALTER TABLE catalog.products SET (autovacuum_enabled = off)",
        "INSERT INTO catalog.products (product_id) SELECT 'new' || n FROM generate_series(1, 500) n",
    )
    report = care(catalog)
    assert report.analyzed == ("products",)
    assert care(catalog).analyzed == ()


def test_low_recall_rebuilds_once_a_week(catalog: IndexedCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    low = replace(CHECK, space_id=catalog.space.space_id)

    def insert_low(*categories: str | None) -> None:
        fine = replace(low, recall=0.99, low=0.98, high=1.0)
        with catalog.engine.begin() as connection:
            checks = [replace(low if name in categories else fine, category=name) for name in (None, "dress")]
            insert_checks(connection, checks)

    insert_low("dress")
    assert care(catalog).rebuilt == ()
    insert_low(None)
    assert [one.reason for one in care(catalog).rebuilt] == ["recall"]
    # The check after the rebuild is fine.
    assert (care(catalog).rebuilt, care(catalog).postponed) == ((), ())
    insert_low(None)
    assert care(catalog).postponed == (catalog.space.index,)
    monkeypatch.setattr(index_care, "REBUILD_INTERVAL", timedelta(0))
    assert [one.reason for one in care(catalog).rebuilt] == ["recall"]


def test_writers_and_searches_continue_during_a_rebuild(catalog: IndexedCatalog) -> None:
    with rebuild_waiting(catalog), catalog.engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        statement = f"UPDATE catalog.{catalog.space.partition} SET embedded_at = now() WHERE image_id % 2 = 0"
        assert connection.execute(text(statement)).rowcount > 100
        found = connection.execute(text(f"SELECT * FROM catalog.similar_images({catalog.image_ids[0]})")).all()
        assert len(found) == 10
        with pytest.raises(RetryableError, match="another `catalog care`"):
            care(catalog)
    assert list_invalid(catalog) == []


def test_the_leftovers_of_a_kill_are_dropped(catalog: IndexedCatalog) -> None:
    damage(catalog)
    with rebuild_waiting(catalog) as backend, catalog.engine.begin() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({backend}, 5000)"))
    (leftover,) = list_invalid(catalog)
    report = care(catalog)
    assert report.dropped == (leftover.removeprefix("catalog."),)
    assert report.rebuilt[0].index_name == catalog.space.index
    assert list_invalid(catalog) == []
    assert measure_bloat(catalog) < 1.2
