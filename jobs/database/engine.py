"""Open connections to the catalog's database. Every wait for the server has a deadline."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import psycopg2
from psycopg2.extensions import connection, cursor, new_type, register_type
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from jobs.errors import ConfigurationError, RetryableError

log = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""Interval at which a long wait is logged and a new connection is opened to probe the server."""
PROBE_SECONDS = 10
MAX_FAILED_PROBES = 3
"""After this many failed probes in a row, one every `LOG_SECONDS`, the connection is closed."""


@dataclass
class _Wait:
    """A statement that is waiting for the server."""

    connection: "WatchedConnection"
    statement: str
    started_at: float
    logged_at: float
    failed_probes: int = 0


class _Watch:
    """All waits of this process, and the thread that watches them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[int, _Wait] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def wait(self, waiting: "WatchedConnection", statement: str) -> Iterator[None]:
        now = time.monotonic()
        with self._lock:
            self._waits[id(waiting)] = _Wait(waiting, statement, now, now)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="database-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.pop(id(waiting), None)

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, LOG_SECONDS / 4))
            now = time.monotonic()
            with self._lock:
                late = [wait for wait in self._waits.values() if now - wait.logged_at >= LOG_SECONDS]
            for wait in late:
                wait.logged_at = now
                self._check(wait)

    def _check(self, wait: _Wait) -> None:
        words = " ".join(wait.statement.split())[:100]
        log.warning("waiting for the database for %.0f s: %s", time.monotonic() - wait.started_at, words)
        wait.failed_probes = 0 if wait.connection.can_reconnect() else wait.failed_probes + 1
        if wait.failed_probes >= MAX_FAILED_PROBES:
            with self._lock:
                is_waiting = self._waits.get(id(wait.connection)) is wait
                if is_waiting:
                    wait.connection.shut_down()


_watch = _Watch()


class WatchedConnection(connection):
    """A connection whose blocked calls raise OperationalError if the server no longer accepts connections."""

    def __init__(self, dsn: str, *arguments: Any) -> None:
        super().__init__(dsn, *arguments)
        self._address = dsn

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor whose statements are watched, unless ``cursor_factory`` is given."""
        options.setdefault("cursor_factory", WatchedCursor)
        return super().cursor(*arguments, **options)

    def commit(self) -> None:
        """Commit."""
        with _watch.wait(self, "COMMIT"):
            super().commit()

    def rollback(self) -> None:
        """Roll back."""
        with _watch.wait(self, "ROLLBACK"):
            super().rollback()

    def can_reconnect(self) -> bool:
        """Return whether the server accepts a new connection within a few seconds."""
        try:
            psycopg2.connect(self._address, connect_timeout=PROBE_SECONDS).close()
        except psycopg2.Error as error:
            # A server that gives a reason is alive. It may have too many connections or be shutting down.
            return bool(error.pgcode) or "FATAL" in str(error)
        return True

    def shut_down(self) -> None:
        """Shut down the socket to wake the thread that is blocked on it."""
        with socket.socket(fileno=os.dup(self.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


class WatchedCursor(cursor):
    """A cursor of a `WatchedConnection`."""

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Run a statement."""
        with _watch.wait(cast(WatchedConnection, self.connection), _read(query)):
            super().execute(query, arguments)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Fetch rows. A named cursor fetches them from the server."""
        with _watch.wait(cast(WatchedConnection, self.connection), f"FETCH FROM {self.name}"):
            return super().fetchmany(self.arraysize if size is None else size)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Run a COPY."""
        with _watch.wait(cast(WatchedConnection, self.connection), _read(sql)):
            super().copy_expert(sql, file, size)


def _read(statement: Any) -> str:
    return statement.decode(errors="replace") if isinstance(statement, bytes) else str(statement)


APPLICATION_NAME = "catalog-tagger"
CONNECT_TIMEOUT_SECONDS = 10
TCP_TIMEOUT_MILLISECONDS = 60_000
_KEEPALIVES = {"idle": 30, "interval": 10, "count": 3}
"""Seconds without traffic and between probes, and the number of probes, of both ends of a connection."""
LOCK_TIMEOUT_SECONDS = 600
"""Maximum wait for a lock in one statement. The job then ends with a retryable error."""
POOL_SIZE = 8
POOL_OVERFLOW = 2

# libpq reports a refused login only with a message, not with an SQLSTATE.
REFUSED_LOGINS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
# SQLSTATE classes and states of a temporary problem.
REFUSED_ENCRYPTION = ("does not support SSL", "certificate verify failed", "server certificate")
READ_ONLY_STATE = "25006"
TEMPORARY_CLASSES = {"08", "40", "53", "58"}
TEMPORARY_STATES = {"55P03", "57014", "57P01", "57P02", "57P03"}


def create_database_engine(database_url: str) -> Engine:
    """Create an engine with a few connections, which are opened on first use and checked before each use.

    TCP keepalives limit how long each end waits for a dead machine, `WatchedConnection` the wait for a hanging server,
    and the lock timeout the wait for a lock.
    """
    engine = create_engine(
        driver_url(database_url),
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_pre_ping=True,
        # The database also rejects NaN, but its error does not show where the value came from.
        json_serializer=partial(json.dumps, allow_nan=False),
        connect_args={
            "application_name": APPLICATION_NAME,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            # A binary COPY sends text in this encoding, whatever the encoding of the database is.
            "client_encoding": "utf8",
            "connection_factory": WatchedConnection,
            **{f"keepalives_{name}": value for name, value in _KEEPALIVES.items()},
            "tcp_user_timeout": TCP_TIMEOUT_MILLISECONDS,
        },
    )
    event.listen(engine, "connect", _configure_session)
    return engine


def _parse_bytes(value: str | bytes | None, cursor: cursor) -> bytes | None:
    return None if value is None else bytes(psycopg2.BINARY(value, cursor))


# The driver's default type is memoryview. Unlike bytes, its values cannot be looked up in a set of bytes.
BYTES = new_type(psycopg2.BINARY.values, "BYTES", _parse_bytes)


def _configure_session(connection: psycopg2.extensions.connection, _record: object) -> None:
    register_type(BYTES, connection)
    # Set with statements, because poolers reject connection options.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
        # Without this, a killed job keeps its place in the queue for a lock.
        cursor.execute("SET client_connection_check_interval = '10s'")
        # Without these, the server notices after two hours that a machine is gone, and keeps the lock of its shard.
        for name, value in _KEEPALIVES.items():
            cursor.execute(f"SET tcp_keepalives_{name} = {value}")
        # Overrides the search path of the role. Hosted databases often have pgvector in a separate schema.
        cursor.execute("""
            SELECT set_config('search_path', concat_ws(', ', 'public', (
                SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                WHERE e.extname = 'vector' AND n.nspname <> 'public'
            )), false)
        """)
    connection.commit()


def driver_url(database_url: str) -> URL:
    """Return the URL with the driver that every job uses.

    Raises:
        ConfigurationError: it is not a URL. The message does not show it, because it may contain a password.
    """
    try:
        return make_url(database_url).set(drivername="postgresql+psycopg2")
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "CATALOG_DATABASE_URL is not of the form postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None


STATEMENT_TIMEOUT_MILLISECONDS = 15_000
"""Limits how long a reader waits, and how long it can hold locks that the nightly run needs."""


@contextmanager
def open_reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a read-only snapshot, whose statements have a time limit."""
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        yield connection


@contextmanager
def translate_database_errors(database_url: str) -> Iterator[None]:
    """Translate connection and server errors into errors with one line. Errors in SQL or data pass unchanged.

    This covers errors of SQLAlchemy and psycopg2. It also works as a decorator.

    Raises:
        RetryableError: the database is unavailable, starting, full or read-only, or a lock timed out.
        ConfigurationError: the database refuses the login.
    """
    try:
        yield
    except (exc.DBAPIError, psycopg2.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        if not _is_connection_error(cause):
            raise
        raise _explain(database_url, cause) from error


def _is_connection_error(cause: BaseException | None) -> bool:
    state = getattr(cause, "pgcode", None)
    if state is None:
        # A connection lost during a COPY or with a named cursor raises a plain DatabaseError.
        is_cut_off = type(cause) is psycopg2.DatabaseError
        return is_cut_off or isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError)
    return state[:2] in TEMPORARY_CLASSES or state in TEMPORARY_STATES or state == READ_ONLY_STATE


def _explain(database_url: str, cause: BaseException | None) -> RetryableError | ConfigurationError:
    address = describe_address(database_url)
    reason = next(iter(str(cause).strip().splitlines()), "no reason given")
    if getattr(cause, "pgcode", None) == READ_ONLY_STATE:
        return RetryableError(
            f"the database at {address} is read-only ({reason}): wait for a failover to end, or name the "
            "primary in CATALOG_DATABASE_URL, with target_session_attrs=read-write if it names several hosts"
        )
    if getattr(cause, "pgcode", None):
        return RetryableError(f"the database at {address} cannot continue: {reason}; run the same command again")
    if any(words in str(cause) for words in REFUSED_LOGINS):
        return ConfigurationError(f"the database at {address} refuses the login: {reason}; check CATALOG_DATABASE_URL")
    if any(words in str(cause) for words in REFUSED_ENCRYPTION):
        return ConfigurationError(
            f"cannot connect to the database at {address} with this encryption: {reason}; check sslmode and "
            "sslrootcert in CATALOG_DATABASE_URL"
        )
    return RetryableError(f"cannot reach the database at {address}: {reason}; is it up? check CATALOG_DATABASE_URL")


def describe_address(database_url: str) -> str:
    """Return ``host:port/name`` for messages, without user and password."""
    url = driver_url(database_url)
    host = url.host or url.query.get("host") or "localhost"
    return f"{host}:{url.port or 5432}/{url.database or ''}"
