"""Configure and start the Airflow of the local stack."""

import configparser
import importlib.metadata
import io
import json
import os
import select
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from jobs.cores import count_cores
from jobs.errors import ConfigurationError, RetryableError
from jobs.local.ports import LOOPBACK, fetch_page
from jobs.local.services import Command, Service, keep_previous_log, open_private_log, open_process, quote_log
from jobs.local.stack_files import StackCredentials, write_private_file
from jobs.settings import PROJECT_ROOT, merge_variables, read_own_variables

API_SERVER = "airflow-api-server"
SCHEDULER = "airflow-scheduler"
DAG_PROCESSOR = "airflow-dag-processor"
TRIGGERER = "airflow-triggerer"
AIRFLOW_SERVICES = (API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER)
ADMIN_USER = "admin"
GPU_POOL = "catalog_gpu"
_UNUSED_PORT = 1
_METRICS = "AIRFLOW__METRICS__"
_LAUNCHER = PROJECT_ROOT / "plugins" / "catalog_airflow" / "launcher.py"
_LAUNCH_TIMEOUT_SECONDS = 300.0
"""Long enough to import Airflow before the first command, and to migrate its tables."""
_TASK_BYTES = 3_000_000_000
"""Memory per task, including its share of the memory of Airflow and Postgres."""


@dataclass(frozen=True)
class AirflowOptions:
    """The options of Airflow.

    ``pool_slots`` is the size of the pool ``catalog_gpu``. With ``jobs_use_stack``, tasks use the stack's own database
    and buckets; otherwise, those set in the caller's environment or ``.env``.
    """

    dags_folder: Path = PROJECT_ROOT / "dags"
    plugins_folder: Path = PROJECT_ROOT / "plugins"
    pool_slots: int = 1
    jobs_use_stack: bool = True


class AirflowLauncher:
    """Runs Airflow commands by forking a process that has imported Airflow.

    That process ends with the block, but the servers that it started keep running.
    """

    def __init__(self, environment: Mapping[str, str], stack_id: str, log_path: Path) -> None:
        # Without -P, the script's folder would be on the import path, and its modules would shadow others.
        command = Command((sys.executable, "-P", str(_LAUNCHER)), environment, PROJECT_ROOT)
        self._log_path = log_path
        self._process = open_process(command, stack_id, log_path, uses_pipes=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def start_service(self, service: Service, _stack_id: str, log_path: Path) -> int:
        """Start a server of Airflow and return its pid. See `jobs.local.services.start_service` for other servers.

        Raises:
            ConfigurationError: Airflow cannot be imported.
            RetryableError: the launcher does not respond in time.
        """
        keep_previous_log(log_path)
        pid, _ = self._send(service.command, log_path, wait=False)
        return pid

    def run_command(self, command: Command, log_path: Path) -> None:
        """Run an Airflow command and wait until it ends.

        Raises:
            ConfigurationError: it fails, or Airflow cannot be imported. The message quotes the end of its log.
            RetryableError: the command does not end in time.
        """
        _, exit_code = self._send(command, log_path, wait=True)
        if exit_code:
            raise ConfigurationError(f"{' '.join(command.argv)} failed with {exit_code}: {quote_log(log_path)}")

    def _send(self, command: Command, log_path: Path, *, wait: bool) -> tuple[int, int | None]:
        requests, responses = self._process.stdin, self._process.stdout
        assert requests is not None
        assert responses is not None
        os.close(open_private_log(log_path))
        request = {"argv": command.argv, "log": str(log_path), "wait": wait}
        try:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        except BrokenPipeError:
            raise self._explain_end() from None
        if not select.select([responses], [], [], _LAUNCH_TIMEOUT_SECONDS)[0]:
            raise RetryableError(
                f"{' '.join(command.argv)} did not end within {_LAUNCH_TIMEOUT_SECONDS:.0f} s: see {log_path}"
            )
        response = responses.readline()
        if not response:
            raise self._explain_end()
        result = json.loads(response)
        return result["pid"], result["exit_code"]

    def _explain_end(self) -> ConfigurationError:
        return ConfigurationError(f"Airflow cannot be started: {quote_log(self._log_path)}")


def choose_task_slots() -> int:
    """Return how many tagging tasks this machine can run at a time: one per GPU, or up to two on a CPU.

    Two, because a task leaves cores idle while it starts, reads or writes. Each further task would need 2 GB of memory.
    """
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    fitting = min(count_cores(), psutil.virtual_memory().total // _TASK_BYTES)
    return gpus or max(1, min(2, fitting))


def format_airflow_url(port: int) -> str:
    """Return the URL of the UI and the API."""
    return f"http://{LOOPBACK}:{port}"


def write_airflow_configuration(
    folder: Path, port: int, database_url: str, credentials: StackCredentials, options: AirflowOptions
) -> None:
    """Write ``airflow.cfg``, and the password file of the only user, an administrator."""
    home = _locate_home(folder)
    home.mkdir(exist_ok=True)
    parser = configparser.RawConfigParser()
    for section, settings in _make_configuration(home, port, database_url, credentials, options).items():
        # Airflow interpolates values, so percent signs must be doubled.
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
            # The default looks up the machine's full name over the network.
            "hostname_callable": "socket.gethostname",
            "execution_api_server_url": f"{format_airflow_url(port)}/execution/",
            "fernet_key": credentials.airflow_fernet_key,
            "simple_auth_manager_users": f"{ADMIN_USER}:admin",
            "simple_auth_manager_passwords_file": str(home / "passwords.json"),
        },
        # The stack migrates the tables before it starts the services, so they need not check.
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
            # With these values, a new scheduler adopts the tasks of a crashed one within a minute instead of five.
            "orphaned_tasks_check_interval": "30",
            "task_instance_heartbeat_timeout": "120",
        },
        "workers": {
            # Tasks must survive a restart of the API server, which takes longer than the default number of retries.
            "execution_api_retries": "8",
            # The end of a task is often noticed only at its next heartbeat, which is five seconds away by default.
            "min_heartbeat_interval": "1",
        },
        "dag_processor": {
            "refresh_interval": "10",
            "parsing_processes": "1",
            "dag_bundle_storage_path": str(home / "bundles"),
        },
        # Off by default. Tags instead of ids in the names of the metrics.
        "metrics": {"statsd_influxdb_enabled": "True", "legacy_names_on": "False"},
        "logging": {
            "base_log_folder": str(home / "logs"),
            "dag_processor_child_process_log_directory": str(home / "logs" / "dag_processor"),
            "colored_console_log": "False",
            # The log servers would listen on every interface, so they are not started. The API server still connects
            # to them for running tasks; on this port the connection is refused at once.
            "worker_log_server_port": str(_UNUSED_PORT),
            "trigger_log_server_port": str(_UNUSED_PORT),
        },
    }


def make_airflow_environment(folder: Path, job_environment: Mapping[str, str], pool_slots: int) -> dict[str, str]:
    """Return the environment of Airflow and its jobs, based on the caller's environment and ``.env``.

    Omits the caller's Airflow settings, which may belong to another Airflow, except where to export metrics. Divides
    the cores among concurrent tasks.
    """
    inherited = {
        name: value
        for name, value in read_own_variables().items()
        if not name.startswith("AIRFLOW") or name.startswith(_METRICS)
    }
    paths = [sysconfig.get_path("scripts"), *filter(None, [os.environ.get("PATH")])]
    return {
        **merge_variables(inherited, job_environment),
        "AIRFLOW_HOME": str(_locate_home(folder)),
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": str(PROJECT_ROOT),
        "PYTHONUNBUFFERED": "1",
        "CATALOG_TAGGING_SLOTS": str(pool_slots),
        "OMP_NUM_THREADS": str(max(1, count_cores() // pool_slots)),
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
        # Airflow's process titles would otherwise overwrite the environment, which contains the stack id.
        "SPT_NOENV": "1",
    }


def read_airflow_version() -> str:
    """Return the version of the installed Airflow.

    Raises:
        ConfigurationError: Airflow is not installed.
    """
    try:
        return importlib.metadata.version("apache-airflow")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError("Airflow is missing: install requirements.txt") from None


def make_airflow_command(environment: Mapping[str, str], *args: str) -> Command:
    """Describe a command for `AirflowLauncher`, which runs it in the launcher's environment."""
    return Command(("airflow", *args), environment, PROJECT_ROOT)


def make_airflow_services(environment: Mapping[str, str], port: int) -> tuple[Service, ...]:
    """Describe the four servers. The API server comes first, because it reports the health of the others."""
    components = (
        (API_SERVER, ("api-server",), "metadatabase"),
        (SCHEDULER, ("scheduler", "--skip-serve-logs"), "scheduler"),
        (DAG_PROCESSOR, ("dag-processor",), "dag_processor"),
        (TRIGGERER, ("triggerer", "--skip-serve-logs"), "triggerer"),
    )
    return tuple(
        Service(
            name,
            make_airflow_command(environment, *args),
            partial(_is_healthy, port, component),
            port if name == API_SERVER else None,
            "CATALOG_AIRFLOW_PORT",
        )
        for name, args, component in components
    )


def _is_healthy(port: int, component: str, process: psutil.Process) -> bool:
    page = fetch_page(port, "/api/v2/monitor/health")
    if page is None or page[0] != 200:
        return False
    health = json.loads(page[1])[component]
    # Airflow still reports "healthy" for a moment after a process was killed, based on its last heartbeat.
    beat = health.get(f"latest_{component}_heartbeat")
    is_current = beat is None or datetime.fromisoformat(beat).timestamp() >= process.create_time()
    return health["status"] == "healthy" and is_current


def has_airflow(folder: Path) -> bool:
    """Return whether the stack in ``folder`` has ever started Airflow."""
    return (_locate_home(folder) / "airflow.cfg").is_file()


def locate_task_logs(folder: Path) -> Path:
    """Return the folder of Airflow's task logs."""
    return _locate_home(folder) / "logs"


def _locate_home(folder: Path) -> Path:
    return folder.resolve() / "airflow"
