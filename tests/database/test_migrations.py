import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from fixtures.job_processes import wait_until
from fixtures.postgres import execute, query
from jobs.database.engine import driver_url
from jobs.database.migrations import SQL_FOLDER, MigrationReport, check_pgvector_version, migrate, order_views
from jobs.errors import PermanentError


@pytest.fixture
def sql_folder(tmp_path: Path) -> Path:
    """A copy of our SQL that a test may edit, as the next version would."""
    return shutil.copytree(SQL_FOLDER, tmp_path / "sql")


def edit(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))


SCHEMA = """
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s %s', c.relname, a.attname) AS line FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'catalog'::regnamespace AND a.attnum > 0
        UNION ALL
        SELECT oid::regprocedure || prosrc FROM pg_proc WHERE pronamespace = 'catalog'::regnamespace
    ) lines
"""


def test_a_second_upgrade_changes_nothing(empty_database_url: str) -> None:
    first = migrate(empty_database_url)
    schema = query(empty_database_url, SCHEMA)
    second = migrate(empty_database_url)
    assert first.applied[0] == "0001.catalog"
    assert second == MigrationReport((), first.views, first.functions, first.pgvector_version)
    assert query(empty_database_url, SCHEMA) == schema


def test_upgrades_at_the_same_time_wait_for_each_other(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(migrate, [empty_database_url] * 4))
    assert sorted(len(report.applied) for report in reports)[:3] == [0, 0, 0]
    assert query(empty_database_url, "SELECT count(*) FROM catalog.champion_models") == 0


def test_an_upgrade_that_is_killed_before_its_bookkeeping_is_done_again(database_url: str, sql_folder: Path) -> None:
    (sql_folder / "migrations" / "0999.new.sql").write_text("CREATE TABLE catalog.new (id integer)")
    engine = create_engine(driver_url(database_url))
    with engine.connect() as holder:
        # Readable, and closed to those who would write.
        holder.execute(text("LOCK TABLE catalog.migrations IN EXCLUSIVE MODE"))
        process = get_context("forkserver").Process(target=migrate, args=(database_url, sql_folder))
        process.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'catalog.migrations'::regclass"
        wait_until(lambda: query(database_url, waiting) == 1)
        process.kill()
        process.join()
    engine.dispose()
    assert migrate(database_url, sql_folder).applied == ("0999.new",)
    assert query(database_url, "SELECT count(*) FROM catalog.new") == 0


def test_a_database_that_a_newer_version_has_upgraded_is_refused(database_url: str, sql_folder: Path) -> None:
    (sql_folder / "migrations" / "0999.new.sql").write_text("CREATE TABLE catalog.new (id integer)")
    migrate(database_url, sql_folder)
    with pytest.raises(PermanentError, match="a newer version"):
        migrate(database_url)


def test_a_schema_of_a_development_version_is_refused(database_url: str) -> None:
    migrate(database_url)
    execute(database_url, "DROP TABLE catalog.migrations")
    with pytest.raises(PermanentError, match="make reset"):
        migrate(database_url)


def test_a_failing_migration_leaves_nothing_and_succeeds_when_fixed(database_url: str, sql_folder: Path) -> None:
    migration = sql_folder / "migrations" / "0999.broken.sql"
    migration.write_text("CREATE TABLE catalog.half_done (x int); SELECT 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        migrate(database_url, sql_folder)
    assert query(database_url, "SELECT to_regclass('catalog.half_done')") is None
    migration.write_text("CREATE TABLE catalog.half_done (x int);")
    assert migrate(database_url, sql_folder).applied == ("0999.broken",)


def test_released_migrations_are_frozen() -> None:
    frozen = (SQL_FOLDER / "migrations" / "frozen.txt").read_text().splitlines()
    hashes = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in sorted((SQL_FOLDER / "migrations").glob("*.sql"))
    ]
    assert hashes[: len(frozen)] == frozen, "a released migration changed: write a new one instead"
    assert hashes == frozen, "a new migration: run `sha256sum *.sql > frozen.txt` in sql/migrations to release it"


@pytest.mark.parametrize(
    ("installed", "available", "words"),
    [
        (None, None, "has no pgvector: install version 0.8.4"),
        (None, "0.8.3", "pgvector 0.8.3.*install version 0.8.4"),
        ("0.8.3", "0.8.5", "ALTER EXTENSION vector UPDATE"),
        ("0.7.4", "0.7.4", "pgvector 0.7.4"),
    ],
)
def test_old_pgvector_is_refused(installed: str | None, available: str | None, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        check_pgvector_version(installed, available)


@pytest.mark.parametrize(
    ("installed", "available", "version"),
    [("0.8.4", "0.8.4", "0.8.4"), (None, "0.8.10", "0.8.10"), ("0.10.0", "0.9.0", "0.10.0"), ("1.0", None, "1.0")],
)
def test_new_pgvector_is_accepted(installed: str | None, available: str | None, version: str) -> None:
    assert check_pgvector_version(installed, available) == version


def test_views_are_created_after_those_that_they_read(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("CREATE VIEW catalog.a AS SELECT * FROM catalog.c JOIN catalog.images")
    (tmp_path / "b.sql").write_text("CREATE VIEW catalog.b AS SELECT 1")
    (tmp_path / "c.sql").write_text("CREATE VIEW catalog.c AS SELECT * FROM catalog.b")
    assert [file.stem for file in order_views(tmp_path)] == ["b", "c", "a"]


@pytest.mark.parametrize(("view", "kind"), [("champion_models", "p.kind"), ("live_models", "s.kind")])
def test_a_view_may_change_its_columns(database_url: str, sql_folder: Path, view: str, kind: str) -> None:
    edit(sql_folder / "views" / f"{view}.sql", f"{kind}, v.model_version_id", f"v.model_version_id, {kind}")
    migrate(database_url, sql_folder)
    first_column = f"""
        SELECT attname FROM pg_attribute WHERE attrelid = 'catalog.{view}'::regclass AND attnum = 1
    """
    assert query(database_url, first_column) == "model_version_id"
    assert query(database_url, "SELECT count(*) FROM catalog.current_product_tags") == 0


def test_a_function_may_change_its_parameters_and_result(database_url: str, sql_folder: Path) -> None:
    live_space = sql_folder / "functions" / "live_space.sql"
    edit(live_space, "live_space() RETURNS integer", "live_space(shop text DEFAULT 'x') RETURNS integer")
    migrate(database_url, sql_folder)
    count = "SELECT count(*) FROM pg_proc WHERE proname = 'live_space'"
    assert query(database_url, count) == 1
    edit(live_space, "RETURNS integer", "RETURNS bigint")
    migrate(database_url, sql_folder)
    assert query(database_url, count) == 1


def test_views_of_others_survive_an_upgrade(database_url: str) -> None:
    execute(
        database_url,
        "CREATE VIEW reporting AS SELECT object_key FROM catalog.current_image_tags",
        "CREATE ROLE reader_of_reports",
        "GRANT SELECT ON catalog.current_image_tags TO reader_of_reports",
    )
    migrate(database_url)
    granted = "SELECT has_table_privilege('reader_of_reports', 'catalog.current_image_tags', 'SELECT')"
    assert query(database_url, "SELECT count(*) FROM reporting") == 0
    assert query(database_url, granted) is True
    execute(database_url, "DROP OWNED BY reader_of_reports", "DROP ROLE reader_of_reports")


def test_a_view_of_others_in_the_way_is_named(database_url: str, sql_folder: Path) -> None:
    execute(database_url, "CREATE VIEW reporting AS SELECT kind FROM catalog.champion_models")
    edit(sql_folder / "views" / "champion_models.sql", "p.kind, v.model_version_id", "v.model_version_id, p.kind")
    with pytest.raises(PermanentError, match="reporting"):
        migrate(database_url, sql_folder)
    assert query(database_url, "SELECT count(*) FROM reporting") == 0


def test_an_ordinary_role_may_upgrade_once_the_extension_is_there(empty_database_url: str) -> None:
    url = make_url(empty_database_url)
    owner = url.set(username="shop_owner").render_as_string(hide_password=False)
    execute(empty_database_url, "CREATE ROLE shop_owner LOGIN")
    try:
        with pytest.raises(PermanentError, match=r"shop_owner .* make it the owner of the database"):
            migrate(owner)
        execute(empty_database_url, f"ALTER DATABASE {url.database} OWNER TO shop_owner")
        with pytest.raises(PermanentError, match=r"lacks a right.* extension"):
            migrate(owner)
        execute(empty_database_url, "CREATE EXTENSION vector")
        assert migrate(owner).applied
        assert query(owner, "SELECT count(*) FROM catalog.current_image_tags") == 0
    finally:
        execute(empty_database_url, "REASSIGN OWNED BY shop_owner TO postgres", "DROP ROLE shop_owner")


@pytest.mark.parametrize("table", ["promotions", "switches", "gate_decisions"])
def test_what_was_decided_is_append_only(engine: Engine, table: str) -> None:
    with pytest.raises(Exception, match="append-only"), engine.begin() as connection:
        connection.execute(text(f"DELETE FROM catalog.{table}"))


def test_role_named_like_the_schema_can_upgrade_twice(empty_database_url: str) -> None:
    execute(empty_database_url, "DROP ROLE IF EXISTS catalog", "CREATE ROLE catalog SUPERUSER LOGIN")
    url = make_url(empty_database_url).set(username="catalog").render_as_string(hide_password=False)
    assert migrate(url).applied
    assert not migrate(url).applied
    execute(empty_database_url, "DROP OWNED BY catalog CASCADE", "DROP ROLE catalog")
