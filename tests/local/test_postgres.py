import os
import signal
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import create_engine, make_url, text

from fixtures.stack_access import find_addresses_of_port, read_environment, read_pids
from jobs.database.engine import create_database_engine
from jobs.errors import PermanentError
from jobs.local.ports import WantedPorts
from jobs.local.services import find_stack_processes, identify_stack
from jobs.local.stack import start_stack, stop_stack


def test_databases_exist_and_store_vectors(storage_stack: Path) -> None:
    url = make_url(read_environment(storage_stack)["CATALOG_DATABASE_URL"]).set(drivername="postgresql+psycopg2")
    engine = create_engine(url)
    with engine.connect() as connection:
        distance = connection.scalar(text("SELECT '[1,0]'::vector <-> '[0,0]'::vector"))
        databases = connection.scalars(text("SELECT datname FROM pg_database")).all()
        is_superuser = connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    engine.dispose()

    assert distance == 1
    assert is_superuser is False
    assert {"catalog", "airflow"} <= set(databases)


@pytest.mark.parametrize("password", ["", "wrong"])
def test_login_requires_the_password(storage_stack: Path, password: str) -> None:
    url = make_url(read_environment(storage_stack)["CATALOG_DATABASE_URL"])

    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(url.set(password=password).render_as_string(hide_password=False))


def test_listens_on_loopback_only_and_reveals_no_secret(storage_stack: Path) -> None:
    server = psutil.Process(read_pids(storage_stack)["postgres"])
    url = make_url(read_environment(storage_stack)["CATALOG_DATABASE_URL"])

    assert url.port
    assert find_addresses_of_port(url.port) == {"127.0.0.1"}
    assert url.password
    assert url.password not in " ".join(server.cmdline())
    assert not (storage_stack / "postgres" / "password").exists()


def test_every_process_of_the_server_is_found(storage_stack: Path) -> None:
    server = psutil.Process(read_pids(storage_stack)["postgres"])
    found = {process.pid for process in find_stack_processes(identify_stack(storage_stack))}

    assert {child.pid for child in server.children(recursive=True)} <= found


def test_unfinished_cluster_is_replaced(empty_folder: Path) -> None:
    unfinished = empty_folder / "postgres" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    start_stack(empty_folder, WantedPorts(), None)

    assert "postgres" in read_pids(empty_folder)
    assert not unfinished.exists()


def test_lost_secrets_are_reported(stack_folder: Path) -> None:
    start_stack(stack_folder, WantedPorts(), None)
    stop_stack(stack_folder)
    (stack_folder / "secrets.json").unlink()

    with pytest.raises(PermanentError, match=r"the password in secrets\.json does not match"):
        start_stack(stack_folder, WantedPorts(), None)


def test_server_recovers_after_a_kill(stack_folder: Path) -> None:
    start_stack(stack_folder, WantedPorts(), None)
    os.kill(read_pids(stack_folder)["postgres"], signal.SIGKILL)

    start_stack(stack_folder, WantedPorts(), None)

    assert "postgres" in read_pids(stack_folder)


def test_the_server_probes_the_machines_of_jobs(storage_stack: Path) -> None:
    engine = create_database_engine(read_environment(storage_stack)["CATALOG_DATABASE_URL"])
    with engine.connect() as connection:
        seconds = [connection.scalar(text(f"SHOW tcp_keepalives_{name}")) for name in ("idle", "interval", "count")]
    engine.dispose()
    # Otherwise, a session of a lost machine keeps its locks for two hours.
    assert seconds == ["30", "10", "3"]
