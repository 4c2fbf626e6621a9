"""Bring a database to the state that this version needs: run-once migrations, then views and functions.

Each file of ``sql/views`` and ``sql/functions`` holds the one object that it is named after, so that it can be
replaced, or dropped and made again, at every upgrade. What disappears is dropped by a migration.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg2.errors
from sqlalchemy import Connection, Engine, exc, text
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.connections import parse_uri
from yoyo.migrations import default_migration_table

from jobs.database.engine import create_database_engine, translate_database_faults
from jobs.errors import ConfigurationError

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"
OLDEST_PGVECTOR = (0, 8, 4)
"""Earlier versions lose rows of HNSW indexes."""

UPGRADE_LOCK = 0x63_61_74_61_6C_6F_67
"""The word "catalog", as the key of an advisory lock that nothing else is likely to take."""

CANNOT_REPLACE = (
    psycopg2.errors.InvalidTableDefinition,
    psycopg2.errors.InvalidFunctionDefinition,
    psycopg2.errors.AmbiguousFunction,
)
"""Other columns, another result, other parameters: in the last case the comment fits both functions."""


@dataclass(frozen=True)
class MigrationReport:
    """What an upgrade did: the names of the migrations that were new, and how much was made again."""

    applied: tuple[str, ...]
    views: int
    functions: int
    pgvector_version: str


def migrate(database_url: str, sql_folder: Path = SQL_FOLDER) -> MigrationReport:
    """Upgrade the database; a second call changes nothing, and calls at the same time wait for each other.

    Raises:
        ConfigurationError: no pgvector, too old a pgvector, a role without the rights, somebody's own view that
            stands on one of ours in the way, or a database that a newer version has upgraded.
        RetryableError: the database is away.
    """
    engine = create_database_engine(database_url)
    try:
        with translate_database_faults(database_url), _translate_refusals(), engine.connect() as guard:
            # Held by this connection's session until it is closed, whatever happens.
            with guard.begin():
                guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPGRADE_LOCK})
            version = _require_pgvector(guard)
            _require_rights(guard)
            applied = _apply_migrations(engine, sql_folder / "migrations")
            views, functions = order_views(sql_folder / "views"), sorted(sql_folder.glob("functions/*.sql"))
            _define_again(guard, views, functions)
            return MigrationReport(applied, len(views), len(functions), version)
    finally:
        engine.dispose()


def check_pgvector_version(installed: str | None, available: str | None) -> str:
    """The version that this database has, or will get from its server.

    Raises:
        ConfigurationError: there is none, or one older than `OLDEST_PGVECTOR`.
    """
    oldest = ".".join(map(str, OLDEST_PGVECTOR))
    version = installed or available
    if version is None:
        raise ConfigurationError(f"this Postgres server has no pgvector: install version {oldest} or newer on it")
    if _version_key(version) >= OLDEST_PGVECTOR:
        return version
    cure = f"install version {oldest} or newer on the server"
    if installed:
        cure += ", then run ALTER EXTENSION vector UPDATE in this database"
    raise ConfigurationError(f"pgvector {version} loses rows of its indexes: {cure}")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _require_pgvector(connection: Connection) -> str:
    with connection.begin():
        installed = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
        available = connection.scalar(text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
    return check_pgvector_version(installed, available)


def _require_rights(connection: Connection) -> None:
    """Check rights that yoyo does not: it stores the applied migrations in the schema public.

    Raises:
        ConfigurationError: the role may not create tables, or not use pgvector where it is installed.
    """
    with connection.begin():
        role, may_create, vector_schema = connection.execute(
            text("""
                SELECT
                    quote_ident(current_user),
                    to_regclass('public.yoyo_lock') IS NOT NULL
                    OR coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false),
                    (
                        SELECT quote_ident(n.nspname)
                        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                        WHERE e.extname = 'vector' AND NOT has_schema_privilege(n.oid, 'USAGE')
                    )
            """)
        ).one()
    if vector_schema:
        raise ConfigurationError(
            f"role {role} may not use pgvector: GRANT USAGE ON SCHEMA {vector_schema} TO {role} in this database"
        )
    if not may_create:
        raise ConfigurationError(
            f"role {role} may not create tables in the schema public: let it own the database or that schema"
        )


class MigrationLedger(PostgresqlBackend):  # type: ignore[misc]
    """Run yoyo on one of our connections, so that every command parses CATALOG_DATABASE_URL in the same way."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        super().__init__(parse_uri("postgresql:"), default_migration_table)
        self.init_database()

    def connect(self, _address: object) -> Any:
        """Open a connection outside the pool, in the autocommit mode that yoyo expects."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.dbapi_connection
        pooled.detach()
        connection.autocommit = True
        return connection


def _apply_migrations(engine: Engine, folder: Path) -> tuple[str, ...]:
    with MigrationLedger(engine) as backend:
        # Our advisory lock is the guard; a row in yoyo's own was left behind by a process that was killed.
        backend.break_lock()
        known = read_migrations(str(folder))
        if set(backend.get_applied_migration_hashes()) - {migration.hash for migration in known}:
            raise ConfigurationError(
                "a newer version of the catalog tagger has upgraded this database: update this one"
            )
        due = backend.to_apply(known)
        for migration in due:
            # Not its own apply_migrations, which books in another transaction: a kill between the two would leave a
            # migration that can neither be gone on from nor applied again.
            with backend.transaction():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration)
        return tuple(migration.id for migration in due)


def _define_again(connection: Connection, views: list[Path], functions: list[Path]) -> None:
    """Replace views and functions, keeping what others built on them; drop them only when there is no other way."""
    with connection.begin():
        # The settings of the vector library can be named in a function only once it is loaded.
        connection.execute(text("SELECT '[1]'::vector"))
        # In the order of their names, functions may come before those that they call.
        connection.execute(text("SET LOCAL check_function_bodies = off"))
        try:
            with connection.begin_nested():
                _execute_files(connection, [*views, *functions])
        except exc.ProgrammingError as error:
            if not isinstance(error.orig, CANNOT_REPLACE):
                raise
            _drop_definitions(connection, views, functions)
            _execute_files(connection, [*views, *functions])


def order_views(folder: Path) -> list[Path]:
    """The files of all views, each behind those that it reads."""
    files = {file.stem: file for file in sorted(folder.glob("*.sql"))}
    named = {name: set(re.findall(r"catalog\.(\w+)", file.read_text(encoding="utf-8"))) for name, file in files.items()}
    order = TopologicalSorter({name: sorted(names & (files.keys() - {name})) for name, names in named.items()})
    return [files[name] for name in order.static_order()]


def _drop_definitions(connection: Connection, views: list[Path], functions: list[Path]) -> None:
    signatures = connection.execute(
        text("""
            SELECT oid::regprocedure::text FROM pg_proc
            WHERE pronamespace = 'catalog'::regnamespace AND proname = ANY (:names)
        """),
        {"names": [file.stem for file in functions]},
    )
    for signature in signatures.scalars().all():
        connection.exec_driver_sql(f"DROP FUNCTION {signature}")
    for view in reversed(views):
        connection.exec_driver_sql(f'DROP VIEW IF EXISTS catalog."{view.stem}"')


def _execute_files(connection: Connection, files: list[Path]) -> None:
    for file in files:
        # A statement without parameters may hold percent signs.
        connection.exec_driver_sql(file.read_text(encoding="utf-8"), execution_options={"no_parameters": True})


@contextmanager
def _translate_refusals() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, psycopg2.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        reason = " ".join(str(cause).split())
        if isinstance(cause, psycopg2.errors.InsufficientPrivilege):
            raise ConfigurationError(f"the database role lacks a right that an upgrade needs: {reason}") from error
        if isinstance(cause, psycopg2.errors.DependentObjectsStillExist):
            raise ConfigurationError(
                f"a view or function of the catalog changes, drop what you built on it and upgrade again: {reason}"
            ) from error
        raise
