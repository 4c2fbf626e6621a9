"""The catalog's database and bucket, opened once for the life of the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection

from jobs.connections import Connections, open_connections, translate_catalog_errors
from jobs.serve.client import QueryClient
from jobs.settings import RunSettings, load_settings

STATEMENT_TIMEOUT_MILLISECONDS = 15_000
"""Nobody waits longer for a page, and the night's run shall not wait for a page either."""


@cache
def open_catalog() -> Connections:
    """The connections; raises PermanentError where the settings are wrong, and is asked again then."""
    return open_connections(load_settings())


def read_drift_settings() -> RunSettings:
    """When categories count as drifted, by the settings."""
    return open_catalog().settings.runs


@cache
def open_query_client() -> QueryClient:
    """The query service, which holds the models that must not live in this server."""
    settings = open_catalog().settings
    return QueryClient(settings.serving.query_service_url, settings.serving.query_token)


@contextmanager
def use_catalog() -> Iterator[Connections]:
    """The connections, for what opens its own transactions; raises as `jobs.connections.connect`."""
    catalog = open_catalog()
    with translate_catalog_errors(catalog.settings.locations.database_url):
        yield catalog


@contextmanager
def read_catalog() -> Iterator[Connection]:
    """One consistent view of the database, in which nothing can be written; raises as `jobs.connections.connect`."""
    with use_catalog() as catalog, catalog.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        yield connection


@contextmanager
def change_catalog() -> Iterator[Connection]:
    """One transaction; raises as `jobs.connections.connect`."""
    catalog = open_catalog()
    with translate_catalog_errors(catalog.settings.locations.database_url), catalog.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        yield connection
