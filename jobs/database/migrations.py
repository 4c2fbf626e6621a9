"""Upgrade a database to the schema of this version: apply new migrations, then define all views and functions.

Each file in ``sql/views`` and ``sql/functions`` defines the object that it is named after. Every upgrade replaces all
of these objects. To remove one, write a migration.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import psycopg2.errors
from sqlalchemy import Connection, exc, text

from jobs.database.engine import create_database_engine, translate_database_errors
from jobs.errors import ConfigurationError

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"
MIN_PGVECTOR = (0, 8, 4)
"""The minimum version of pgvector. Earlier versions lose rows of HNSW indexes."""

UPGRADE_LOCK = 0x63_61_74_61_6C_6F_67
"""Key of an advisory lock: the bytes of the word "catalog"."""

CANNOT_REPLACE = (
    psycopg2.errors.InvalidTableDefinition,
    psycopg2.errors.InvalidFunctionDefinition,
    psycopg2.errors.AmbiguousFunction,
)
"""Errors if columns, results or parameters have changed. New parameters make COMMENT match two functions."""


@dataclass(frozen=True)
class MigrationReport:
    """The result of an upgrade: the migrations that it applied, and the numbers of views and functions."""

    applied: tuple[str, ...]
    views: int
    functions: int
    pgvector_version: str


def migrate(database_url: str, sql_folder: Path = SQL_FOLDER) -> MigrationReport:
    """Upgrade the database. A second call changes nothing, and concurrent calls wait for each other.

    Raises:
        ConfigurationError: pgvector is missing or too old, the role lacks a privilege, a view that is not ours depends
            on a view that changes, or a newer version has upgraded the database.
        RetryableError: the database is unavailable.
    """
    engine = create_database_engine(database_url)
    try:
        with translate_database_errors(database_url), _translate_refusals(), engine.connect() as guard:
            # The lock is held until this connection closes, also if the process is killed.
            with guard.begin():
                guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPGRADE_LOCK})
            version = _require_pgvector(guard)
            with guard.begin():
                require_rights(guard)
            applied = _apply_migrations(guard, sql_folder / "migrations")
            views, functions = order_views(sql_folder / "views"), sorted(sql_folder.glob("functions/*.sql"))
            _redefine(guard, views, functions)
            return MigrationReport(applied, len(views), len(functions), version)
    finally:
        engine.dispose()


def check_pgvector_version(installed: str | None, available: str | None) -> str:
    """Return the pgvector version that is installed in the database, or that its server would install.

    Raises:
        ConfigurationError: pgvector is unavailable, or older than `MIN_PGVECTOR`.
    """
    oldest = ".".join(map(str, MIN_PGVECTOR))
    version = installed or available
    if version is None:
        raise ConfigurationError(f"this Postgres server has no pgvector: install version {oldest} or newer on it")
    if _version_key(version) >= MIN_PGVECTOR:
        return version
    cure = f"install version {oldest} or newer on the server"
    if installed:
        cure += ", then run ALTER EXTENSION vector UPDATE in this database"
    raise ConfigurationError(f"pgvector {version} loses rows of its indexes: {cure}")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _require_pgvector(connection: Connection) -> str:
    with connection.begin():
        installed, available = read_pgvector_versions(connection)
    return check_pgvector_version(installed, available)


def read_pgvector_versions(connection: Connection) -> tuple[str | None, str | None]:
    """Return the version of pgvector in the database, and the one that its server would install."""
    installed = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    available = connection.scalar(text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
    return installed, available


def require_rights(connection: Connection) -> None:
    """Check two privileges. Without them, later errors would be unclear.

    Raises:
        ConfigurationError: the role may not create the schema, or may not use the schema of pgvector.
    """
    role, may_create, vector_schema = connection.execute(
        text("""
            SELECT
                quote_ident(current_user),
                to_regnamespace('catalog') IS NOT NULL OR has_database_privilege(current_database(), 'CREATE'),
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
            f"role {role} may not create the schema catalog: make it the owner of the database, or grant it "
            "CREATE on it"
        )


def _apply_migrations(connection: Connection, folder: Path) -> tuple[str, ...]:
    with connection.begin():
        due = find_due_migrations(connection, folder)
    for name in due:
        # One transaction per migration, so an upgrade after a kill continues with the first one that is not recorded.
        with connection.begin():
            _execute_files(connection, [folder / f"{name}.sql"])
            connection.execute(text("INSERT INTO catalog.migrations (name) VALUES (:name)"), {"name": name})
    return tuple(due)


def find_due_migrations(connection: Connection, folder: Path = SQL_FOLDER / "migrations") -> list[str]:
    """Return the names of the migrations that the database does not have yet, in their order.

    Raises:
        ConfigurationError: a development version created the schema, or a newer version has upgraded it.
    """
    names = [file.stem for file in sorted(folder.glob("*.sql"))]
    # The first migration creates the table.
    exists = connection.scalar(text("SELECT to_regclass('catalog.migrations') IS NOT NULL"))
    if not exists and connection.scalar(text("SELECT to_regclass('catalog.images') IS NOT NULL")):
        raise ConfigurationError(
            "the schema catalog was created by a development version. Drop it (`make reset` on the local stack)"
        )
    applied = set(connection.scalars(text("SELECT name FROM catalog.migrations"))) if exists else set()
    if not applied.issubset(names):
        raise ConfigurationError(
            "a newer version of the catalog tagger has upgraded this database: install that version"
        )
    return [name for name in names if name not in applied]


def find_missing_definitions(connection: Connection) -> list[str]:
    """Return the views and functions of this version that the database does not have."""
    statement = text("""
        SELECT name FROM unnest(CAST(:names AS text[])) AS name
        WHERE NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('catalog') AND relname = name)
          AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('catalog') AND proname = name)
        ORDER BY name
    """)
    files = [*SQL_FOLDER.glob("views/*.sql"), *SQL_FOLDER.glob("functions/*.sql")]
    return list(connection.execute(statement, {"names": [file.stem for file in files]}).scalars())


def _redefine(connection: Connection, views: list[Path], functions: list[Path]) -> None:
    """Replace views and functions, which keeps objects that depend on them. Drop them only if replacing fails."""
    with connection.begin():
        # Load the vector library, because functions can set its settings only after that.
        connection.execute(text("SELECT '[1]'::vector"))
        # Functions are created in the order of their names, so some come before functions that they call.
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
    """Return the files of all views in an order in which each view comes after the views that it reads."""
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
        # Without parameters, a percent sign needs no escape.
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
                "a view or function of the catalog changes. Drop the views that depend on it and upgrade again: "
                f"{reason}"
            ) from error
        raise
