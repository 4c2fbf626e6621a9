"""A database server as `sql/deployment/create_databases.sql` leaves it."""

from collections.abc import Iterator

import pytest

from fixtures.postgres import execute
from tests.deployment.postgres_programs import run_create_databases

PASSWORDS = {"POSTGRES_TAGGER_PASSWORD": "it's one", "POSTGRES_AIRFLOW_PASSWORD": "another"}


@pytest.fixture
def deployment(postgres_server: str) -> Iterator[str]:
    """The URL of the server, as superuser; databases and roles are dropped afterwards."""
    try:
        done = run_create_databases(postgres_server, PASSWORDS)
        assert done.returncode == 0, done.stderr
        yield postgres_server
    finally:
        for name in ("catalog", "airflow"):
            execute(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for name in ("tagger", "airflow", "reader"):
            execute(postgres_server, f"DROP ROLE IF EXISTS {name}")
