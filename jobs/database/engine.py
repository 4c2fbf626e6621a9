"""Connections to the catalog's database, and their faults in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy import URL, Engine, create_engine, event, exc, make_url

from jobs.database.watched_connection import WatchedConnection
from jobs.errors import PermanentError, RetryableError

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


def _configure_session(connection: psycopg2.extensions.connection, _record: object) -> None:
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
        PermanentError: it is no URL; the message leaves it out, since it may hold a password.
    """
    try:
        return make_url(database_url).set(drivername="postgresql+psycopg2")
    except (exc.ArgumentError, ValueError):
        raise PermanentError(
            "CATALOG_DATABASE_URL does not read as postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None


@contextmanager
def translate_database_faults(database_url: str) -> Iterator[None]:
    """Turn the faults of connections and servers into one line; wrong SQL and wrong data pass as they are.

    It covers SQLAlchemy and bare psycopg2, and serves as a decorator too.

    Raises:
        RetryableError: the database is away, starting, full, or gave up on a lock.
        PermanentError: the database refuses the login.
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


def _explain(database_url: str, cause: BaseException | None) -> RetryableError | PermanentError:
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
        return PermanentError(f"the database at {address} refuses the login: {reason}; check CATALOG_DATABASE_URL")
    if any(words in str(cause) for words in REFUSED_ENCRYPTION):
        return PermanentError(
            f"no connection to the database at {address} with this encryption: {reason}; check sslmode and sslrootcert "
            "in CATALOG_DATABASE_URL"
        )
    return RetryableError(f"cannot reach the database at {address}: {reason}; is it up? check CATALOG_DATABASE_URL")


def describe_address(database_url: str) -> str:
    """``host:port/name`` for messages, without user and password."""
    url = driver_url(database_url)
    host = url.host or url.query.get("host") or "localhost"
    return f"{host}:{url.port or 5432}/{url.database or ''}"
