"""Run jobs while the database stops responding or other sessions hold locks."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import make_url, text

from fixtures.job_processes import count_waiting, start_job, wait_until
from fixtures.postgres import execute, run_server
from fixtures.shop import Shop
from jobs.connections import connect
from jobs.database import engine as engine_module
from jobs.database.engine import create_database_engine, translate_database_errors
from jobs.errors import PermanentError, RetryableError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.settings import make_settings

SERIES = text("SELECT * FROM generate_series(1, 1000)")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use timeouts of seconds instead of minutes."""
    monkeypatch.setattr(engine_module, "LOG_SECONDS", 0.4)
    # The smallest value that libpq accepts.
    monkeypatch.setattr(engine_module, "PROBE_SECONDS", 2)


@contextmanager
def stop_server(folder: Path) -> Iterator[None]:
    """Suspend all processes of a Postgres server, while the kernel still accepts connections."""
    leader = psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("wait", ["statement", "commit"])
def test_a_silent_server_ends_the_job(wait: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with run_server() as (url, folder):
        engine = create_database_engine(url)
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE seen (id int)"))
            with (
                stop_server(folder),
                pytest.raises(RetryableError, match="cannot reach the database"),
                translate_database_errors(url),
            ):
                connection.commit() if wait == "commit" else connection.execute(text("SELECT 1"))
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()
    assert "waiting for the database for" in caplog.text


def test_a_server_that_goes_silent_between_rows_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_FAILED_PROBES", 1)
    with run_server() as (url, folder):
        engine = create_database_engine(url)
        with engine.connect() as connection:
            rows = connection.execute(SERIES, execution_options={"yield_per": 10})
            assert next(rows)[0] == 1
            with (
                stop_server(folder),
                pytest.raises(RetryableError, match="cannot reach the database"),
                translate_database_errors(url),
            ):
                list(rows)
            connection.invalidate()
        engine.dispose()


def test_a_session_that_crashes_between_rows_ends_the_job() -> None:
    with run_server() as (url, _):
        engine = create_database_engine(url)
        with engine.connect() as connection:
            session = connection.scalar(text("SELECT pg_backend_pid()"))
            rows = connection.execute(SERIES, execution_options={"yield_per": 10})
            assert next(rows)[0] == 1
            psutil.Process(session).kill()
            with pytest.raises(RetryableError, match="cannot reach the database"), translate_database_errors(url):
                list(rows)
            connection.invalidate()
        engine.dispose()
        # Wait for the recovery, because stopping a recovering server takes a minute.
        wait_until(lambda: is_answering(url))


def is_answering(url: str) -> bool:
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(url).close()
        return True
    return False


def test_a_slow_statement_is_allowed_while_the_server_responds(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_database_engine(database_url)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(3)"))
    engine.dispose()
    assert "s: SELECT pg_sleep(3)" in caplog.text


def test_a_lock_held_by_another_session_ends_the_job(
    tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tagging_shop.put_images(4)
    monkeypatch.setattr(engine_module, "LOCK_TIMEOUT_SECONDS", 2)
    settings = make_settings(tagging_shop.environment)
    with tagging_shop.connections.engine.connect() as blocker:
        blocker.exec_driver_sql("LOCK TABLE catalog.images IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(RetryableError, match=r"lock timeout.*run the same command again"),
            connect(settings) as connections,
        ):
            ingest(connections, IngestOptions())
    assert "waiting for the database for" in caplog.text
    with connect(settings) as connections:
        assert ingest(connections, IngestOptions()).tagged == 4


def test_the_error_names_a_read_only_database(tagging_shop: Shop, database_url: str) -> None:
    tagging_shop.put_images(4)
    name = make_url(database_url).database
    execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with (
        pytest.raises(RetryableError, match=r"is read-only.*target_session_attrs=read-write"),
        connect(make_settings(tagging_shop.environment)) as connections,
    ):
        ingest(connections, IngestOptions())


@contextmanager
def serve_without_encryption() -> Iterator[int]:
    """Yield the port of a server that responds like a Postgres without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(8)
                client.sendall(b"N")

        thread = threading.Thread(target=refuse)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_missing_encryption_is_a_configuration_error() -> None:
    with serve_without_encryption() as port:
        url = f"postgresql://user:secret@127.0.0.1:{port}/catalog?sslmode=require"
        with pytest.raises(PermanentError, match="check sslmode") as caught, translate_database_errors(url):
            create_database_engine(url).connect()
    assert "secret" not in str(caught.value)


def test_a_second_signal_ends_a_job_that_waits_for_a_lock(tagging_shop: Shop, tmp_path: Path) -> None:
    tagging_shop.put_images(4)
    with tagging_shop.connections.engine.connect() as blocker:
        blocker.exec_driver_sql("LOCK TABLE catalog.images IN ACCESS EXCLUSIVE MODE")
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            waiting = count_waiting(tagging_shop, "catalog.images")
            process = start_job("ingest", environment=tagging_shop.environment, messages=tmp_path / "messages")
            wait_until(lambda: count_waiting(tagging_shop, "catalog.images") > waiting)  # noqa: B023
            assert process.pid is not None
            for _ in range(2):
                psutil.Process(process.pid).send_signal(number)
                time.sleep(0.3)
                if not process.is_alive():
                    break
            process.join(10)
            assert process.exitcode in {code, -number}, (tmp_path / "messages").read_text()
