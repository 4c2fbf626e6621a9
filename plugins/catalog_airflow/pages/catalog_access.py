"""Open connections to the catalog's database, bucket and query service, once per server."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection

from jobs.connections import Connections, open_connections, translate_catalog_errors
from jobs.database.engine import STATEMENT_TIMEOUT_MILLISECONDS, open_reading
from jobs.review.queue import ReviewQueue
from jobs.review.shared_queue import SharedQueue
from jobs.serve.client import QueryClient
from jobs.settings import load_settings


@cache
def open_catalog() -> Connections:
    """Return the connections, or raise PermanentError if a setting is invalid. The next call then tries again."""
    return open_connections(load_settings())


@cache
def open_queue() -> SharedQueue:
    """Return the review queue of this server."""
    return SharedQueue(read_catalog)


def read_queue(connection: Connection) -> ReviewQueue:
    """Return the review queue, which may be some minutes old."""
    return open_queue().get(connection, open_catalog().settings.runs)


@cache
def open_query_client() -> QueryClient:
    """Return the client of the query service. The service keeps models out of this server's memory."""
    settings = open_catalog().settings
    return QueryClient(settings.serving.query_service_url, settings.serving.query_token)


@contextmanager
def use_catalog() -> Iterator[Connections]:
    """Yield the connections, for code that opens transactions. Raises the same errors as `jobs.connections.connect`."""
    catalog = open_catalog()
    with translate_catalog_errors(catalog.settings.locations.database_url):
        yield catalog


@contextmanager
def read_catalog() -> Iterator[Connection]:
    """Yield a connection in a read-only snapshot. Raises the same errors as `jobs.connections.connect`."""
    with use_catalog() as catalog, open_reading(catalog.engine) as connection:
        yield connection


@contextmanager
def change_catalog() -> Iterator[Connection]:
    """Yield a connection in a transaction. Raises the same errors as `jobs.connections.connect`."""
    with use_catalog() as catalog, catalog.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        yield connection
