"""The Airflow of the local stack: its processes, their configuration and their environment."""

import configparser
import importlib.metadata
import io
import json
import os
import select
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from jobs.errors import PermanentError, RetryableError
from jobs.local.airflow_client import AirflowClient
from jobs.local.credentials import StackCredentials
from jobs.local.ports import LOOPBACK
from jobs.local.private_files import open_private_log, write_private_file
from jobs.local.services import Command, Service, keep_previous_log, open_process, quote_log
from jobs.settings import PROJECT_ROOT, merge_variables, read_own_variables

_PROGRAM = PROJECT_ROOT / "plugins" / "catalog_airflow" / "launcher.py"
_ORDER_SECONDS = 300.0
"""For one order: the imports come before the first, and the migration of Airflow's tables is one."""


class AirflowLauncher:
    """A launcher that ends with the block; what it started goes on."""

    def __init__(self, environment: Mapping[str, str], stack_id: str, log_path: Path) -> None:
        # Without -P, modules of the plugin would hide those of others.
        command = Command((sys.executable, "-P", str(_PROGRAM)), environment, PROJECT_ROOT)
        self._log_path = log_path
        self._process = open_process(command, stack_id, log_path, takes_orders=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def start_service(self, service: Service, _stack_id: str, log_path: Path) -> int:
        """Start a server of Airflow, as `jobs.local.services.start_service` starts others; return its pid.

        Raises:
            PermanentError: Airflow cannot be imported.
            RetryableError: the launcher does not answer in time.
        """
        keep_previous_log(log_path)
        pid, _ = self._order(service.command, log_path, is_awaited=False)
        return pid

    def run_command(self, command: Command, log_path: Path) -> None:
        """Run a command of Airflow to its end.

        Raises:
            PermanentError: it fails, or Airflow cannot be imported; the message ends with the last lines of the log.
            RetryableError: it does not end in time.
        """
        _, exit_code = self._order(command, log_path, is_awaited=True)
        if exit_code:
            raise PermanentError(f"{' '.join(command.words)} failed with {exit_code}: {quote_log(log_path)}")

    def _order(self, command: Command, log_path: Path, *, is_awaited: bool) -> tuple[int, int | None]:
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        os.close(open_private_log(log_path))
        order = {"words": command.words, "log": str(log_path), "is_awaited": is_awaited}
        try:
            orders.write(json.dumps(order).encode() + b"\n")
            orders.flush()
        except BrokenPipeError:
            raise self._explain_end() from None
        if not select.select([answers], [], [], _ORDER_SECONDS)[0]:
            raise RetryableError(f"{' '.join(command.words)} did not end within {_ORDER_SECONDS:.0f} s: see {log_path}")
        answer = answers.readline()
        if not answer:
            raise self._explain_end()
        report = json.loads(answer)
        return report["pid"], report["exit_code"]

    def _explain_end(self) -> PermanentError:
        return PermanentError(f"Airflow cannot be started: {quote_log(self._log_path)}")


API_SERVER = "airflow-api-server"
SCHEDULER = "airflow-scheduler"
DAG_PROCESSOR = "airflow-dag-processor"
TRIGGERER = "airflow-triggerer"
AIRFLOW_SERVICES = (API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER)
ADMIN_USER = "admin"
GPU_POOL = "catalog_gpu"
_NOBODYS_PORT = 1


@dataclass(frozen=True)
class AirflowOptions:
    """What Airflow runs.

    ``pool_slots`` tasks at a time may use the pool ``catalog_gpu``. With ``jobs_use_stack`` its tasks work on the
    stack's own database and buckets; without, on those that the caller's environment or ``.env`` names.
    """

    dags_folder: Path = PROJECT_ROOT / "dags"
    plugins_folder: Path = PROJECT_ROOT / "plugins"
    pool_slots: int = 1
    jobs_use_stack: bool = True


def format_airflow_url(port: int) -> str:
    """Where the UI and the API are."""
    return f"http://{LOOPBACK}:{port}"


def write_airflow_configuration(
    folder: Path, port: int, database_url: str, credentials: StackCredentials, options: AirflowOptions
) -> None:
    """Write ``airflow.cfg`` and the password file of the one user, who is an administrator."""
    home = _locate_home(folder)
    home.mkdir(exist_ok=True)
    parser = configparser.RawConfigParser()
    for section, settings in _make_configuration(home, port, database_url, credentials, options).items():
        # Airflow reads the file with interpolation, in which a percent sign is written twice.
        parser[section] = {name: value.replace("%", "%%") for name, value in settings.items()}
    text = io.StringIO()
    parser.write(text)
    write_private_file(home / "airflow.cfg", text.getvalue())
    write_private_file(home / "passwords.json", json.dumps({ADMIN_USER: credentials.airflow_password}))


def _make_configuration(
    home: Path, port: int, database_url: str, credentials: StackCredentials, options: AirflowOptions
) -> dict[str, dict[str, str]]:
    return {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "4",
            "dags_folder": str(options.dags_folder.resolve()),
            "plugins_folder": str(options.plugins_folder.resolve()),
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",
            "default_timezone": "utc",
            # The default asks the network for the machine's full name.
            "hostname_callable": "socket.gethostname",
            "execution_api_server_url": f"{format_airflow_url(port)}/execution/",
            "fernet_key": credentials.airflow_fernet_key,
            "simple_auth_manager_users": f"{ADMIN_USER}:admin",
            "simple_auth_manager_passwords_file": str(home / "passwords.json"),
        },
        # The stack migrates before it starts the services, none of which has to look again.
        "database": {"sql_alchemy_conn": database_url, "check_migrations": "False"},
        "api": {
            "host": LOOPBACK,
            "port": str(port),
            "base_url": format_airflow_url(port),
            "workers": "1",
            "secret_key": credentials.airflow_session_key,
            "instance_name": "Catalog tagger",
        },
        "api_auth": {"jwt_secret": credentials.airflow_token_key},
        "scheduler": {
            "scheduler_idle_sleep_time": "0.5",
            # After a crash, tasks of the scheduler that died are taken up within a minute, not within five.
            "orphaned_tasks_check_interval": "30",
            "task_instance_heartbeat_timeout": "120",
        },
        # A task waits out a start of the API server, which takes longer than the default allows.
        "workers": {"execution_api_retries": "8"},
        "dag_processor": {
            "refresh_interval": "10",
            "parsing_processes": "1",
            "dag_bundle_storage_path": str(home / "bundles"),
        },
        "logging": {
            "base_log_folder": str(home / "logs"),
            "dag_processor_child_process_log_directory": str(home / "logs" / "dag_processor"),
            "colored_console_log": "False",
            # The servers of logs listen on every interface and are not started. For a running task the API server
            # asks them besides reading the file: it shall be refused at once, and by nobody else's server.
            "worker_log_server_port": str(_NOBODYS_PORT),
            "trigger_log_server_port": str(_NOBODYS_PORT),
        },
    }


def make_airflow_environment(folder: Path, job_environment: Mapping[str, str], pool_slots: int) -> dict[str, str]:
    """Return the caller's environment and ``.env`` with what Airflow and the jobs that it starts need.

    Settings of another Airflow that the caller may have are left out. The tasks that may compute at a time share
    the cores.
    """
    inherited = {name: value for name, value in read_own_variables().items() if not name.startswith("AIRFLOW")}
    paths = [sysconfig.get_path("scripts"), *filter(None, [os.environ.get("PATH")])]
    return {
        **merge_variables(inherited, job_environment),
        "AIRFLOW_HOME": str(_locate_home(folder)),
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": str(PROJECT_ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // pool_slots)),
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
        # Airflow's processes write their titles where their environment was, by which they are found.
        "SPT_NOENV": "1",
    }


def read_airflow_version() -> str:
    """The version of Airflow that is installed.

    Raises:
        PermanentError: none is.
    """
    try:
        return importlib.metadata.version("apache-airflow")
    except importlib.metadata.PackageNotFoundError:
        raise PermanentError("Airflow is missing: install requirements.txt") from None


def make_airflow_command(environment: Mapping[str, str], *words: str) -> Command:
    """A command of Airflow, for the `AirflowLauncher`, whose environment it gets."""
    return Command(("airflow", *words), environment, PROJECT_ROOT)


def make_airflow_services(environment: Mapping[str, str], client: AirflowClient, port: int) -> tuple[Service, ...]:
    """The four processes; the API server comes first, for it tells how the others are."""
    api_server = make_airflow_command(environment, "api-server")
    others = (
        (SCHEDULER, ("scheduler", "--skip-serve-logs"), "scheduler"),
        (DAG_PROCESSOR, ("dag-processor",), "dag_processor"),
        (TRIGGERER, ("triggerer", "--skip-serve-logs"), "triggerer"),
    )
    return (
        Service(API_SERVER, api_server, _is_healthy(client, "metadatabase"), port, "CATALOG_AIRFLOW_PORT"),
        *(
            Service(name, make_airflow_command(environment, *words), _is_healthy(client, component))
            for name, words, component in others
        ),
    )


def _is_healthy(client: AirflowClient, component: str) -> Callable[[psutil.Process], bool]:
    def check(process: psutil.Process) -> bool:
        try:
            health = client.read_health()[component]
        except RetryableError:
            return False
        # The heartbeat of a process that was killed a moment ago still looks healthy.
        beat = health.latest_heartbeat
        return health.is_healthy and (beat is None or beat.timestamp() >= process.create_time())

    return check


def locate_task_logs(folder: Path) -> Path:
    """Return the folder of the tasks' logs in that of the stack."""
    return _locate_home(folder) / "logs"


def _locate_home(folder: Path) -> Path:
    return folder.resolve() / "airflow"
