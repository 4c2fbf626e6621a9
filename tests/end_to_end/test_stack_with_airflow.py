import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from jobs.database.migrations import migrate
from jobs.errors import PermanentError
from jobs.local.airflow_client import AirflowClient
from jobs.local.airflow_services import GPU_POOL, AirflowOptions
from jobs.local.ports import WantedPorts, find_free_port, is_port_open
from jobs.local.processes import find_stack_processes, identify_stack, is_alive
from jobs.local.stack import StackStatus, start_stack, stop_stack
from jobs.settings import LOCATIONS, PROJECT_ROOT
from tests.local.conftest import make_stack_folder
from tests.local.stack_access import (
    find_listening_addresses,
    find_readable_files,
    read_environment,
    read_pids,
)

# One worker runs them all: two cores carry one Airflow.
pytestmark = [pytest.mark.end_to_end, pytest.mark.xdist_group("airflow")]

TELL_DAG = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

with DAG("tell", schedule=None, params={"word": Param("none", type="string")}):
    BashOperator(
        task_id="tell",
        pool="catalog_gpu",
        bash_command='echo "word {{ params.word }}"; echo "$CATALOG_DATABASE_URL|$CATALOG_S3_ENDPOINT_URL|$PYTHONPATH"',
    )
"""


@pytest.fixture(scope="module")
def airflow_folder() -> Iterator[Path]:
    with make_stack_folder() as folder:
        dags = folder.parent / "dags"
        dags.mkdir()
        (dags / "tell.py").write_text(TELL_DAG)
        (dags / "broken.py").write_text("from airflow.sdk import DAG\n\nraise ValueError('no such luck')\n")
        yield folder


@pytest.fixture(scope="module")
def airflow_port() -> int:
    return find_free_port()


@pytest.fixture(scope="module")
def query_port() -> int:
    """Not the usual one, which a test of another worker may hold."""
    return find_free_port()


@pytest.fixture
def airflow_stack(airflow_folder: Path, airflow_port: int, query_port: int) -> StackStatus:
    """The one stack of this module, started again where a test stopped it."""
    options = AirflowOptions(dags_folder=airflow_folder.parent / "dags", pool_slots=3)
    return start_stack(airflow_folder, WantedPorts(airflow=airflow_port, query=query_port), options)


@pytest.fixture
def client(airflow_stack: StackStatus) -> Iterator[AirflowClient]:
    assert airflow_stack.airflow_url
    assert airflow_stack.password
    with AirflowClient(airflow_stack.airflow_url, airflow_stack.username, airflow_stack.password) as client:
        yield client


def test_every_part_is_healthy(airflow_stack: StackStatus, client: AirflowClient) -> None:
    health = client.read_health()

    assert {service.state for service in airflow_stack.services} == {"running"}
    assert set(health) == {"metadatabase", "scheduler", "triggerer", "dag_processor"}
    assert all(component.is_healthy for component in health.values())


def test_only_loopback_is_listened_on(airflow_stack: StackStatus) -> None:
    processes = find_stack_processes(identify_stack(airflow_stack.folder))

    assert find_listening_addresses(processes) == {"127.0.0.1"}


def test_every_descendant_of_a_service_is_found(airflow_stack: StackStatus) -> None:
    services = [psutil.Process(service.pid) for service in airflow_stack.services]
    # Listed first: a child that begins after the search is no fault of it.
    descendants = {child for service in services for child in service.children(recursive=True)}
    missed = descendants - set(find_stack_processes(identify_stack(airflow_stack.folder)))

    assert not [process for process in missed if is_alive(process)]


def test_nobody_gets_in_without_the_password(airflow_stack: StackStatus) -> None:
    url = airflow_stack.airflow_url
    assert url
    with httpx.Client(base_url=url, trust_env=False) as stranger:
        assert stranger.get("/").status_code == 200
        assert stranger.get("/api/v2/dags").status_code == 401
        assert stranger.get("/auth/token").status_code == 403
    with AirflowClient(url, "admin", "admin") as guesser, pytest.raises(PermanentError, match="401"):
        guesser.read_import_errors()


def test_files_with_secrets_are_closed_to_others(airflow_stack: StackStatus) -> None:
    assert find_readable_files(airflow_stack.folder / "airflow", ["airflow.cfg", "passwords.json"]) == []


def test_run_works_on_the_stack_in_the_pool(airflow_stack: StackStatus, client: AirflowClient) -> None:
    client.wait_for_dag("tell", 120)
    run = client.wait_for_run(client.trigger_dag("tell", {"word": "hello"}), 180)
    tasks = client.read_task_instances("tell", run.run_id)

    assert [(task.task_id, task.map_index, task.state, task.try_number) for task in tasks] == [
        ("tell", -1, "success", 1)
    ]
    environment = read_environment(airflow_stack.folder)
    told = client.read_xcom("tell", run.run_id, "tell")
    assert told == "|".join([*(environment[name] for name in (LOCATIONS[0], LOCATIONS[3])), str(PROJECT_ROOT)])
    assert "word hello" in client.read_log("tell", run.run_id, tasks[0])
    assert run.state == "success"
    assert client.read_pool_slots(GPU_POOL) == 3


def test_query_service_waits_for_models_where_airflow_looks_for_it(airflow_stack: StackStatus) -> None:
    environment = read_environment(airflow_stack.folder)
    migrate(environment["CATALOG_DATABASE_URL"])
    pids = read_pids(airflow_stack.folder)
    url = environment["CATALOG_QUERY_SERVICE_URL"]
    assert psutil.Process(pids["airflow-api-server"]).environ()["CATALOG_QUERY_SERVICE_URL"] == url
    deadline = time.monotonic() + 30
    while "no classifier is live yet" not in (health := httpx.get(f"{url}/health", trust_env=False)).text:
        assert time.monotonic() < deadline, health.text
        time.sleep(0.2)
    assert health.status_code == 503


def test_query_service_that_died_is_replaced_alone_on_its_port(airflow_stack: StackStatus) -> None:
    before, url = read_pids(airflow_stack.folder), read_environment(airflow_stack.folder)["CATALOG_QUERY_SERVICE_URL"]
    os.kill(before["query-service"], signal.SIGKILL)
    start_stack(airflow_stack.folder, WantedPorts(), AirflowOptions())
    after = read_pids(airflow_stack.folder)

    assert {name for name in before if before[name] != after[name]} == {"query-service"}
    assert httpx.get(f"{url}/health", trust_env=False).json()["reason"] == "not_ready"


def test_dag_that_cannot_be_loaded_is_named(client: AirflowClient) -> None:
    client.wait_for_dag("tell", 120)

    with pytest.raises(PermanentError, match=r"no DAG broken(?s:.*)broken\.py: ValueError: no such luck"):
        client.wait_for_dag("broken", 5)


def test_second_start_finds_what_runs(airflow_stack: StackStatus, airflow_port: int) -> None:
    again = start_stack(airflow_stack.folder, WantedPorts(), AirflowOptions())

    assert again == airflow_stack
    assert again.airflow_url == f"http://127.0.0.1:{airflow_port}"


def test_killed_scheduler_is_replaced_alone(airflow_stack: StackStatus) -> None:
    before = read_pids(airflow_stack.folder)
    os.kill(before["airflow-scheduler"], signal.SIGKILL)
    start_stack(airflow_stack.folder, WantedPorts(), AirflowOptions())
    after = read_pids(airflow_stack.folder)

    assert {name for name in before if before[name] != after[name]} == {"airflow-scheduler"}


def test_stop_leaves_nothing_after_a_crash(airflow_stack: StackStatus, airflow_port: int) -> None:
    folder = airflow_stack.folder
    os.kill(read_pids(folder)["airflow-scheduler"], signal.SIGKILL)
    assert any("LocalExecutor" in " ".join(one.cmdline()) for one in find_stack_processes(identify_stack(folder)))
    stop_stack(folder)

    assert find_stack_processes(identify_stack(folder)) == []
    assert not is_port_open(airflow_port)
