import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from fixtures.job_processes import wait_until
from fixtures.stack_access import connect_s3, find_readable_files, read_environment, read_pids
from jobs.errors import PermanentError
from jobs.local.ports import LOOPBACK, WantedPorts, find_free_port, is_port_open
from jobs.local.services import STACK_ID_VARIABLE, find_stack_processes, identify_stack
from jobs.local.stack import read_status, start_stack, stop_stack
from jobs.local.stack_files import read_record
from jobs.settings import PROJECT_ROOT

START = """
from pathlib import Path
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack
import sys
start_stack(Path(sys.argv[1]), WantedPorts(), None)
"""


def start(folder: Path, ports: WantedPorts | None = None) -> None:
    start_stack(folder, ports or WantedPorts(), None)


def list_ports(folder: Path) -> list[int]:
    record = read_record(folder)
    assert record is not None
    return [record.ports.postgres, record.ports.s3]


def test_second_start_keeps_running_servers(stack_folder: Path) -> None:
    start(stack_folder)
    pids = read_pids(stack_folder)
    start(stack_folder)

    assert set(pids) == {"postgres", "s3"}
    assert read_pids(stack_folder) == pids


def test_only_dead_servers_are_restarted(stack_folder: Path) -> None:
    start(stack_folder)
    before = read_pids(stack_folder)
    os.kill(before["s3"], signal.SIGKILL)
    start(stack_folder)
    after = read_pids(stack_folder)

    assert after["postgres"] == before["postgres"]
    assert after["s3"] != before["s3"]


def test_data_and_settings_survive_a_restart(stack_folder: Path) -> None:
    start(stack_folder)
    environment = read_environment(stack_folder)
    with psycopg2.connect(environment["CATALOG_DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 7 AS number")
    connection.close()
    with connect_s3(stack_folder) as s3:
        s3.put_object(Bucket="images", Key="kept.jpg", Body=b"kept")

    stop_stack(stack_folder)
    start(stack_folder)

    assert read_environment(stack_folder) == environment
    with psycopg2.connect(environment["CATALOG_DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT number FROM kept")
        assert cursor.fetchone() == (7,)
    connection.close()
    with connect_s3(stack_folder) as s3:
        assert s3.get_object(Bucket="images", Key="kept.jpg")["Body"].read() == b"kept"


def test_stop_leaves_no_process_and_no_open_port(stack_folder: Path) -> None:
    start(stack_folder)
    ports = list_ports(stack_folder)
    assert all(is_port_open(port) for port in ports)
    stop_stack(stack_folder)

    assert find_stack_processes(identify_stack(stack_folder)) == []
    assert not any(is_port_open(port) for port in ports)
    assert {service.state for service in read_status(stack_folder).services} == {"stopped"}


def test_stop_finds_servers_of_a_deleted_folder(stack_folder: Path) -> None:
    start(stack_folder)
    ports = list_ports(stack_folder)
    shutil.rmtree(stack_folder)
    stop_stack(stack_folder)

    assert find_stack_processes(identify_stack(stack_folder)) == []
    assert not any(is_port_open(port) for port in ports)
    assert not stack_folder.exists()


def test_only_the_owner_can_read_files_with_secrets(stack_folder: Path) -> None:
    start(stack_folder)

    assert find_readable_files(stack_folder, ["secrets.json", "stack.env", "stack.json"]) == []


def test_taken_port_is_rejected_and_a_free_one_is_remembered(stack_folder: Path) -> None:
    free_port = find_free_port()
    with socket.create_server((LOOPBACK, 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PermanentError, match=rf"port {port} is taken.*CATALOG_POSTGRES_PORT"):
            start(stack_folder, WantedPorts(postgres=port))
        start(stack_folder, WantedPorts(postgres=free_port))

    stop_stack(stack_folder)
    start(stack_folder)

    assert list_ports(stack_folder)[0] == free_port


def test_port_of_a_running_server_cannot_be_changed(stack_folder: Path) -> None:
    start(stack_folder)

    with pytest.raises(PermanentError, match="stack down"):
        start(stack_folder, WantedPorts(s3=find_free_port()))


@pytest.mark.parametrize("sign", ["postgres/unfinished/PG_VERSION", "postgres/data/postmaster.pid"])
def test_stop_and_start_clean_up_after_a_start_killed_halfway(empty_folder: Path, sign: str) -> None:
    for finish in (stop_stack, start):
        shutil.rmtree(empty_folder, ignore_errors=True)
        with subprocess.Popen([sys.executable, "-c", START, str(empty_folder)], cwd=PROJECT_ROOT) as starter:
            wait_until((empty_folder / sign).exists)
            starter.kill()
        finish(empty_folder)

    assert set(read_pids(empty_folder)) == {"postgres", "s3"}
    stop_stack(empty_folder)
    assert find_stack_processes(identify_stack(empty_folder)) == []


def test_start_stops_strays_of_a_crash_and_nothing_else(stack_folder: Path) -> None:
    start(stack_folder)
    pids = read_pids(stack_folder)
    environment = {**os.environ, STACK_ID_VARIABLE: identify_stack(stack_folder)}
    with subprocess.Popen(["sleep", "600"], env=environment) as stray:
        start(stack_folder)
        stray.kill()

    assert stray.returncode == -signal.SIGTERM
    assert read_pids(stack_folder) == pids


def test_two_starts_at_once_make_one_stack(empty_folder: Path) -> None:
    starters = [multiprocessing.get_context("spawn").Process(target=start, args=(empty_folder,)) for _ in range(2)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()

    assert [starter.exitcode for starter in starters] == [0, 0]
    names = [process.name() for process in find_stack_processes(identify_stack(empty_folder))]
    assert names.count("rclone") == 1


def test_status_before_the_first_start(empty_folder: Path) -> None:
    status = read_status(empty_folder)

    assert {service.state for service in status.services} == {"stopped"}
    assert status.airflow_url is None
    assert not empty_folder.exists()
