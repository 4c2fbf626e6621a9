"""Check the database: connection, pgvector, rights and schema."""

import time
from collections.abc import Callable
from functools import wraps

from sqlalchemy import Connection, text

from jobs.connections import Connections
from jobs.database.engine import describe_address, open_reading, translate_database_errors
from jobs.database.migrations import (
    check_pgvector_version,
    find_due_migrations,
    find_missing_definitions,
    read_pgvector_versions,
    require_rights,
)
from jobs.doctor.checks import Finding
from jobs.errors import ConfigurationError


def _reads_database(check: Callable[[Connection], Finding]) -> Callable[[Connections], Finding]:
    @wraps(check)
    def run(connections: Connections) -> Finding:
        with (
            translate_database_errors(connections.settings.locations.database_url),
            open_reading(connections.engine) as connection,
        ):
            return check(connection)

    return run


def check_database(connections: Connections) -> Finding:
    """Check that the database accepts connections and can be written to."""
    url = connections.settings.locations.database_url
    with translate_database_errors(url), connections.engine.connect() as connection:
        started = time.perf_counter()
        version, is_read_only = connection.execute(
            text("SELECT current_setting('server_version'), current_setting('transaction_read_only')::boolean")
        ).one()
        milliseconds = 1000 * (time.perf_counter() - started)
    if is_read_only:
        raise ConfigurationError(
            f"the database at {describe_address(url)} is read-only: name the primary in CATALOG_DATABASE_URL, with "
            "target_session_attrs=read-write if it names several hosts"
        )
    return Finding(f"Postgres {version} at {describe_address(url)}, {milliseconds:.0f} ms for a query")


@_reads_database
def check_pgvector(connection: Connection) -> Finding:
    """Check that pgvector is installed in the database in a version that loses no rows."""
    installed, available = read_pgvector_versions(connection)
    version = check_pgvector_version(installed, available)
    if installed is None:
        raise ConfigurationError(f"pgvector {version} is not installed in this database: run `catalog migrate`")
    return Finding(f"version {version}")


@_reads_database
def check_rights(connection: Connection) -> Finding:
    """Check that the role may change the schema, as migrations and new vector spaces do."""
    require_rights(connection)
    role, foreign = connection.execute(
        text("""
            SELECT quote_ident(current_user), (
                SELECT min(relname) FROM pg_class WHERE relnamespace = to_regnamespace('catalog')
                AND relkind IN ('r', 'p', 'v') AND NOT pg_has_role(relowner, 'USAGE')
            )
        """)
    ).one()
    if foreign:
        raise ConfigurationError(
            f"role {role} does not own catalog.{foreign}: connect as the role that ran `catalog migrate`, or make "
            f"{role} a member of it"
        )
    return Finding(f"role {role} may change the schema")


@_reads_database
def check_schema(connection: Connection) -> Finding:
    """Check that the schema is that of this version."""
    missing = find_due_migrations(connection) or find_missing_definitions(connection)
    if missing:
        raise ConfigurationError(f"the catalog schema is missing or outdated ({missing[0]}): run `catalog migrate`")
    return Finding("that of this version")
