import socket

import psycopg2
import pytest
from sqlalchemy import Engine, exc, make_url, text

from jobs.database.engine import create_database_engine, translate_database_errors
from jobs.errors import JobError, PermanentError, RetryableError


def provoke(database_url: str, statement: str = "SELECT 1") -> None:
    engine = create_database_engine(database_url)
    try:
        with translate_database_errors(database_url), engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def test_server_away_is_worth_a_retry_and_named_without_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(RetryableError) as caught:
            provoke(f"postgresql://shop:hush@127.0.0.1:{port}/catalog")
    assert f"127.0.0.1:{port}/catalog" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_login_is_permanent(database_url: str) -> None:
    url = make_url(database_url)
    for wrong in (url.set(database="nobody"), url.set(username="nobody")):
        with pytest.raises(PermanentError, match=r"refuses the login.*nobody"):
            provoke(wrong.render_as_string(hide_password=False))


@pytest.mark.parametrize("url", ["postgresql://shop:hush@host:port/catalog", "postgresql//shop:hush", ""])
def test_wrong_url_is_permanent_and_not_repeated(url: str) -> None:
    with pytest.raises(PermanentError, match="CATALOG_DATABASE_URL") as caught:
        create_database_engine(url)
    assert "hush" not in str(caught.value)


def test_wrong_url_in_a_fault_is_not_repeated_either() -> None:
    with pytest.raises(PermanentError, match="CATALOG_DATABASE_URL"), translate_database_errors("postgresql//hush"):
        raise psycopg2.OperationalError("connection refused")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", "is it up"),
        ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(9)", "statement timeout"),
        ("DO $$ BEGIN RAISE 'full' USING ERRCODE = 'too_many_connections'; END $$", "full"),
        ("DO $$ BEGIN RAISE 'knot' USING ERRCODE = 'deadlock_detected'; END $$", "knot"),
    ],
)
def test_passing_faults_are_worth_a_retry(database_url: str, statement: str, words: str) -> None:
    with pytest.raises(RetryableError, match=words):
        provoke(database_url, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 / 0",
        "SELECT * FROM no_such_table",
        "DO $$ BEGIN RAISE 'not live' USING ERRCODE = 'object_not_in_prerequisite_state'; END $$",
    ],
)
def test_wrong_sql_passes_as_it_is(database_url: str, statement: str) -> None:
    with pytest.raises(exc.DBAPIError):
        provoke(database_url, statement)


def test_bare_driver_faults_are_translated_too(database_url: str, engine: Engine) -> None:
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        with (
            pytest.raises(RetryableError, match=r"terminat|closed the connection"),
            translate_database_errors(database_url),
        ):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_serves_as_a_decorator(database_url: str) -> None:
    @translate_database_errors(database_url)
    def fail() -> None:
        raise psycopg2.OperationalError("server closed the connection")

    for _ in range(2):
        with pytest.raises(JobError, match="server closed"):
            fail()


def test_a_pooled_connection_that_died_is_replaced(database_url: str, engine: Engine) -> None:
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    provoke(database_url, f"SELECT pg_terminate_backend({pid})")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid


def test_connections_name_their_application(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "catalog-tagger"
