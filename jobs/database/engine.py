"""Open connections to the catalog's database, with a deadline on everything they wait for."""

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
from sqlalchemy import URL, Engine, create_engine, event, exc, make_url

from jobs.errors import ConfigurationError, RetryableError

log = logging.getLogger(__name__)

TELL_SECONDS = 30.0
"""Interval at which a long wait is logged and the server probed with a new connection."""
PROBE_SECONDS = 10
MAX_FAILED_PROBES = 3
"""Probes in a row without an answer, one each `TELL_SECONDS`, after which the server counts as gone."""


@dataclass
class _Wait:
    """A statement that a server has not answered yet."""

    waiting: "WatchedConnection"
    statement: str
    since: float
    told: float
    silences: int = 0


class _Watch:
    """All waits of this process, and the thread that looks after them as long as there is one."""

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
                self._thread = threading.Thread(target=self._look, name="database-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.pop(id(waiting), None)

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, TELL_SECONDS / 4))
            now = time.monotonic()
            with self._lock:
                late = [wait for wait in self._waits.values() if now - wait.told >= TELL_SECONDS]
            for wait in late:
                wait.told = now
                self._examine(wait)

    def _examine(self, wait: _Wait) -> None:
        words = " ".join(wait.statement.split())[:100]
        log.warning("waiting for the database for %.0f s: %s", time.monotonic() - wait.since, words)
        wait.silences = 0 if wait.waiting.answers_others() else wait.silences + 1
        if wait.silences >= MAX_FAILED_PROBES:
            with self._lock:
                is_waiting = self._waits.get(id(wait.waiting)) is wait
                if is_waiting:
                    wait.waiting.cut()


_watch = _Watch()


class WatchedConnection(connection):
    """Raise OperationalError in a blocked call when the server no longer accepts connections."""

    def __init__(self, dsn: str, *arguments: Any) -> None:
        super().__init__(dsn, *arguments)
        self._address = dsn

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """A cursor whose statements are watched, unless another is asked for."""
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

    def answers_others(self) -> bool:
        """Whether the server lets a new connection in, within some seconds."""
        try:
            psycopg2.connect(self._address, connect_timeout=PROBE_SECONDS).close()
        except psycopg2.Error as error:
            # A server that refuses for a reason is alive: too many connections, a shutdown.
            return bool(error.pgcode) or "FATAL" in str(error)
        return True

    def cut(self) -> None:
        """Shut the socket down, which wakes the thread that is blocked on it."""
        with socket.socket(fileno=os.dup(self.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


class WatchedCursor(cursor):
    """The statements of a `WatchedConnection`."""

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Run a statement."""
        with _watch.wait(cast(WatchedConnection, self.connection), _read(query)):
            super().execute(query, arguments)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Take rows, of a cursor with a name from the server."""
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
LOCK_TIMEOUT_SECONDS = 600
"""Of one statement; past it the job ends, and asks again later."""
POOL_SIZE = 2
POOL_OVERFLOW = 4

# libpq gives no SQLSTATE for a refused login, so that its words must do.
REFUSED_LOGINS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
# SQLSTATE classes and states of a database that is up, but cannot answer at this moment.
REFUSED_ENCRYPTION = ("does not support SSL", "certificate verify failed", "server certificate")
READ_ONLY_STATE = "25006"
PASSING_CLASSES = {"08", "40", "53", "58"}
PASSING_STATES = {"55P03", "57014", "57P01", "57P02", "57P03"}


def create_database_engine(database_url: str) -> Engine:
    """Make an engine whose few connections are checked before each use; nothing is opened yet.

    No wait has no end: for a machine that is gone by TCP, for a silent server by `WatchedConnection`, for a lock by
    the server.
    """
    engine = create_engine(
        driver_url(database_url),
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_pre_ping=True,
        # The database refuses NaN too, but without naming where it came from.
        json_serializer=partial(json.dumps, allow_nan=False),
        connect_args={
            "application_name": APPLICATION_NAME,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            # Whatever the database's own is: a COPY in binary sends texts as they are encoded here.
            "client_encoding": "utf8",
            "connection_factory": WatchedConnection,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": TCP_TIMEOUT_MILLISECONDS,
        },
    )
    event.listen(engine, "connect", _configure_session)
    return engine


def _parse_bytes(value: str | bytes | None, cursor: cursor) -> bytes | None:
    return None if value is None else bytes(psycopg2.BINARY(value, cursor))


# The driver's own type is a memoryview, which is neither hashable nor equal to bytes in a set.
BYTES = new_type(psycopg2.BINARY.values, "BYTES", _parse_bytes)


def _configure_session(connection: psycopg2.extensions.connection, _record: object) -> None:
    register_type(BYTES, connection)
    # Statements and not options of the connection, which poolers refuse.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
        # Of a job that was killed while it waited, the server would keep the place in the queue.
        cursor.execute("SET client_connection_check_interval = '10s'")
        # Whatever the role's own is. Hosted databases often have pgvector in a schema of its own.
        cursor.execute("""
            SELECT set_config('search_path', concat_ws(', ', 'public', (
                SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                WHERE e.extname = 'vector' AND n.nspname <> 'public'
            )), false)
        """)
    connection.commit()


def driver_url(database_url: str) -> URL:
    """The URL with the one driver that every job uses.

    Raises:
        ConfigurationError: it is no URL; the message leaves it out, since it may hold a password.
    """
    try:
        return make_url(database_url).set(drivername="postgresql+psycopg2")
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "CATALOG_DATABASE_URL does not read as postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None


@contextmanager
def translate_database_faults(database_url: str) -> Iterator[None]:
    """Turn the faults of connections and servers into one line; wrong SQL and wrong data pass as they are.

    It covers SQLAlchemy and bare psycopg2, and serves as a decorator too.

    Raises:
        RetryableError: the database is away, starting, full, or gave up on a lock.
        ConfigurationError: the database refuses the login.
    """
    try:
        yield
    except (exc.DBAPIError, psycopg2.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        if not _is_connection_fault(cause):
            raise
        raise _explain(database_url, cause) from error


def _is_connection_fault(cause: BaseException | None) -> bool:
    state = getattr(cause, "pgcode", None)
    if state is None:
        # In the middle of a COPY or of a cursor with a name it is no more than a DatabaseError.
        is_cut_off = type(cause) is psycopg2.DatabaseError
        return is_cut_off or isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError)
    return state[:2] in PASSING_CLASSES or state in PASSING_STATES or state == READ_ONLY_STATE


def _explain(database_url: str, cause: BaseException | None) -> RetryableError | ConfigurationError:
    address = describe_address(database_url)
    reason = next(iter(str(cause).strip().splitlines()), "no reason given")
    if getattr(cause, "pgcode", None) == READ_ONLY_STATE:
        return RetryableError(
            f"the database at {address} takes no writes ({reason}): a failover ends by itself; otherwise let "
            "CATALOG_DATABASE_URL name the primary, with target_session_attrs=read-write where it names several hosts"
        )
    if getattr(cause, "pgcode", None):
        return RetryableError(f"the database at {address} gave up: {reason}; run the same command again")
    if any(words in str(cause) for words in REFUSED_LOGINS):
        return ConfigurationError(f"the database at {address} refuses the login: {reason}; check CATALOG_DATABASE_URL")
    if any(words in str(cause) for words in REFUSED_ENCRYPTION):
        return ConfigurationError(
            f"no connection to the database at {address} with this encryption: {reason}; check sslmode and sslrootcert "
            "in CATALOG_DATABASE_URL"
        )
    return RetryableError(f"cannot reach the database at {address}: {reason}; is it up? check CATALOG_DATABASE_URL")


def describe_address(database_url: str) -> str:
    """``host:port/name`` for messages, without user and password."""
    url = driver_url(database_url)
    host = url.host or url.query.get("host") or "localhost"
    return f"{host}:{url.port or 5432}/{url.database or ''}"
