import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import httpx
import psutil
import pytest

from demo.airflow_client import AirflowClient
from fixtures.stack_access import find_listening_addresses, find_readable_files, read_environment, read_pids
from jobs.doctor.airflow_checks import AirflowExamination, find_airflow
from jobs.errors import PermanentError, RetryableError
from jobs.local.airflow_services import GPU_POOL
from jobs.local.ports import WantedPorts, is_port_open
from jobs.local.services import find_stack_processes, identify_stack, is_alive
from jobs.local.stack import StackStatus, stop_stack
from jobs.settings import LOCATIONS, PROJECT_ROOT
from tests.end_to_end.live_stack import PATIENCE_SECONDS, POOL_SLOTS, PROJECT_DAGS, StackHome, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


@pytest.fixture
def airflow_stack(stack_home: StackHome) -> StackStatus:
    """Return the stack that all tests in this folder share. Restart it if a test has stopped it."""
    return stack_home.start()


@pytest.fixture
def client(airflow_stack: StackStatus) -> Iterator[AirflowClient]:
    assert airflow_stack.airflow_url
    assert airflow_stack.password
    with AirflowClient(airflow_stack.airflow_url, airflow_stack.username, airflow_stack.password) as client:
        yield client


def test_every_component_is_healthy(airflow_stack: StackStatus, client: AirflowClient) -> None:
    health = json.loads(client.read_page("/api/v2/monitor/health"))

    assert {service.state for service in airflow_stack.services} == {"running"}
    assert set(health) == {"metadatabase", "scheduler", "triggerer", "dag_processor"}
    assert all(component["status"] == "healthy" for component in health.values())


def test_listens_on_loopback_only(airflow_stack: StackStatus) -> None:
    processes = find_stack_processes(identify_stack(airflow_stack.folder))

    assert find_listening_addresses(processes) == {"127.0.0.1"}


def test_every_descendant_of_a_service_is_found(airflow_stack: StackStatus) -> None:
    services = [psutil.Process(service.pid) for service in airflow_stack.services]
    # List descendants before the search, because it cannot find processes that start later.
    descendants = {child for service in services for child in service.children(recursive=True)}
    missed = descendants - set(find_stack_processes(identify_stack(airflow_stack.folder)))

    assert not [process for process in missed if is_alive(process)]


def test_access_requires_the_password(airflow_stack: StackStatus) -> None:
    url = airflow_stack.airflow_url
    assert url
    with httpx.Client(base_url=url, trust_env=False) as stranger:
        assert stranger.get("/").status_code == 200
        assert stranger.get("/api/v2/dags").status_code == 401
        assert stranger.get("/auth/token").status_code == 403
    with AirflowClient(url, "admin", "admin") as guesser, pytest.raises(PermanentError, match="401"):
        guesser.read_import_errors()


def test_only_the_owner_can_read_files_with_secrets(airflow_stack: StackStatus) -> None:
    assert find_readable_files(airflow_stack.folder / "airflow", ["airflow.cfg", "passwords.json"]) == []


def test_run_uses_the_stack_and_the_pool(airflow_stack: StackStatus, client: AirflowClient) -> None:
    client.wait_for_dag("tell", PATIENCE_SECONDS)
    run = client.wait_for_run(client.trigger_dag("tell", {"word": "hello"}), PATIENCE_SECONDS)
    tasks = client.read_task_instances("tell", run.run_id)

    assert [(task.task_id, task.map_index, task.state, task.try_number) for task in tasks] == [
        ("tell", -1, "success", 1)
    ]
    environment = read_environment(airflow_stack.folder)
    told = client.read_xcom("tell", run.run_id, "tell")
    assert told == "|".join([*(environment[name] for name in (LOCATIONS[0], LOCATIONS[3])), str(PROJECT_ROOT)])
    assert "word hello" in client.read_log("tell", run.run_id, tasks[0])
    assert run.state == "success"
    assert json.loads(client.read_page(f"/api/v2/pools/{GPU_POOL}"))["slots"] == POOL_SLOTS


@pytest.mark.usefixtures("stack")
def test_only_the_dead_query_service_is_restarted_and_waits_for_models(
    airflow_stack: StackStatus, stack_home: StackHome
) -> None:
    before, url = read_pids(airflow_stack.folder), read_environment(airflow_stack.folder)["CATALOG_QUERY_SERVICE_URL"]
    assert psutil.Process(before["airflow-api-server"]).environ()["CATALOG_QUERY_SERVICE_URL"] == url
    os.kill(before["query-service"], signal.SIGKILL)
    stack_home.start()
    after = read_pids(airflow_stack.folder)

    assert {name for name in before if before[name] != after[name]} == {"query-service"}
    wait_until(lambda: "no classifier is live yet" in httpx.get(f"{url}/health", trust_env=False).text)
    health = httpx.get(f"{url}/health", trust_env=False)
    assert (health.status_code, health.json()["reason"]) == (503, "not_ready")


def test_dag_that_cannot_be_loaded_is_reported(client: AirflowClient) -> None:
    wait_until(lambda: client.read_import_errors() != {})

    with pytest.raises(PermanentError, match=r"no DAG broken(?s:.*)broken\.py: ValueError: no DAG here"):
        client.wait_for_dag("broken", 0)


def test_the_doctor_reads_the_state_of_airflow(airflow_stack: StackStatus, client: AirflowClient) -> None:
    wait_until(lambda: client.read_import_errors() != {} and all(map(client.has_dag, PROJECT_DAGS)))
    examination = AirflowExamination(find_airflow(1, airflow_stack.folder))

    assert examination.check_airflow().sentence.endswith("all servers are running")
    with pytest.raises(PermanentError, match=r"^broken\.py: ValueError: no DAG here$"):
        examination.check_dags()
    assert f"{GPU_POOL} has {POOL_SLOTS} slots" in examination.check_pool().sentence


def test_the_doctor_notices_that_airflow_does_not_run(airflow_stack: StackStatus) -> None:
    located = find_airflow(1, airflow_stack.folder)
    assert located is not None
    lost = {**located.environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/no"}
    with pytest.raises(PermanentError, match=r"the state of Airflow cannot be read: .*OperationalError"):
        AirflowExamination(replace(located, environment=lost)).check_airflow()
    away = {**located.environment, "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/"}
    with pytest.raises(RetryableError, match=r"API server does not respond at http://127\.0\.0\.1:1/"):
        AirflowExamination(replace(located, environment=away)).check_airflow()


def test_second_start_keeps_running_servers(airflow_stack: StackStatus, stack_home: StackHome) -> None:
    again = stack_home.start(WantedPorts())

    assert again == airflow_stack
    assert again.airflow_url == f"http://127.0.0.1:{stack_home.ports.airflow}"


def test_only_the_killed_scheduler_is_restarted(airflow_stack: StackStatus, stack_home: StackHome) -> None:
    before = read_pids(airflow_stack.folder)
    os.kill(before["airflow-scheduler"], signal.SIGKILL)
    stack_home.start()
    after = read_pids(airflow_stack.folder)

    assert {name for name in before if before[name] != after[name]} == {"airflow-scheduler"}


def test_stop_leaves_no_process_after_a_crash(airflow_stack: StackStatus, stack_home: StackHome) -> None:
    folder = airflow_stack.folder
    os.kill(read_pids(folder)["airflow-scheduler"], signal.SIGKILL)
    assert any("LocalExecutor" in " ".join(one.cmdline()) for one in find_stack_processes(identify_stack(folder)))
    stop_stack(folder)

    assert find_stack_processes(identify_stack(folder)) == []
    assert stack_home.ports.airflow is not None
    assert not is_port_open(stack_home.ports.airflow)
