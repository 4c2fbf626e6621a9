"""Start, inspect and stop the local stack: Postgres, the S3 endpoint, the query service and Airflow."""

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.local.airflow_services import (
    ADMIN_USER,
    AIRFLOW_SERVICES,
    API_SERVER,
    GPU_POOL,
    AirflowLauncher,
    AirflowOptions,
    format_airflow_url,
    make_airflow_command,
    make_airflow_environment,
    make_airflow_services,
    read_airflow_version,
    write_airflow_configuration,
)
from jobs.local.ports import WantedPorts, choose_ports, require_free_port
from jobs.local.postgres import (
    CATALOG_DATABASE,
    POSTGRES,
    create_cluster,
    create_databases,
    format_database_url,
    make_postgres_service,
)
from jobs.local.query_service import QUERY_SERVICE, QUERY_URL_SETTING, format_query_url, make_query_service
from jobs.local.s3_endpoint import S3_ENDPOINT, create_buckets, make_s3_environment, make_s3_service
from jobs.local.services import (
    Service,
    find_stack_process,
    find_stack_processes,
    find_strays,
    identify_stack,
    start_service,
    stop_processes,
    wait_until_ready,
)
from jobs.local.stack_files import (
    StackCredentials,
    StackRecord,
    hold_lock,
    load_credentials,
    read_credentials,
    read_record,
    write_private_file,
    write_record,
)
from jobs.progress import Progress, show_progress
from jobs.settings import LOCAL_STACK_ENVIRONMENT

_STORAGE_SERVICES = (POSTGRES, S3_ENDPOINT)
_LOCK_FILE = "stack.lock"
_POOL_TEXT = "One slot for each GPU, or for the processor if there is none"
_STOP_TIMEOUT_SECONDS = 20.0
_POSTGRES_STOP_TIMEOUT_SECONDS = 60.0
_STRAY_STOP_TIMEOUT_SECONDS = 5.0

StartService = Callable[[Service, str, Path], int]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceStatus:
    """A server of the stack; ``pid`` is None if it is not running."""

    name: str
    pid: int | None

    @property
    def state(self) -> str:
        """Return ``running`` or ``stopped``."""
        return "stopped" if self.pid is None else "running"


@dataclass(frozen=True)
class StackStatus:
    """The servers, and the URL and login of Airflow's UI. URL and login are None before the first start."""

    folder: Path
    services: tuple[ServiceStatus, ...]
    airflow_url: str | None
    username: str
    password: str | None = field(repr=False)


@dataclass(frozen=True)
class _Stack:
    """Values that all steps of a start use."""

    folder: Path
    stack_id: str
    credentials: StackCredentials
    progress: Progress

    def locate_log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def start_stack(folder: Path, ports: WantedPorts, airflow: AirflowOptions | None) -> StackStatus:
    """Start the servers that are not running, and wait until all are ready. Without ``airflow``, only Postgres and S3.

    Servers that are already running keep the options they were started with.

    Raises:
        ConfigurationError: a port is taken, a program is missing, or a server ends during the start.
        RetryableError: a server was not ready in time.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        hold_lock(folder / _LOCK_FILE, f"another command is starting or stopping the stack in {folder}"),
        show_progress("stack up") as progress,
    ):
        stack = _Stack(folder.resolve(), identify_stack(folder), load_credentials(folder), progress)
        record = _resolve_ports(stack, ports)
        stop_processes(find_strays(stack.stack_id, record.pids.values()), signal.SIGTERM, _STRAY_STOP_TIMEOUT_SECONDS)
        if airflow is None:
            _start_storage(stack, record)
        else:
            _start_all(stack, record, airflow)
    return read_status(folder)


def read_status(folder: Path) -> StackStatus:
    """Return the status of the stack in ``folder`` and of each of its servers."""
    record, credentials = read_record(folder), read_credentials(folder)
    services = []
    for name in (*_STORAGE_SERVICES, QUERY_SERVICE, *AIRFLOW_SERVICES):
        process = find_stack_process(record.pids.get(name), identify_stack(folder)) if record else None
        services.append(ServiceStatus(name, process.pid if process else None))
    return StackStatus(
        folder,
        tuple(services),
        format_airflow_url(record.ports.airflow) if record else None,
        ADMIN_USER,
        credentials.airflow_password if credentials else None,
    )


def stop_stack(folder: Path) -> None:
    """Stop every process of the stack in ``folder``, including those left by a crash. Keep its data.

    Raises:
        ConfigurationError: a process cannot be stopped.
    """
    if not folder.exists():
        _stop_servers(identify_stack(folder), {})
        return
    with (
        hold_lock(folder / _LOCK_FILE, f"another command is starting or stopping the stack in {folder}"),
        show_progress("stack down") as progress,
    ):
        progress.report("stopping all services")
        record = read_record(folder)
        _stop_servers(identify_stack(folder), record.pids if record else {})
        if record:
            write_record(folder, replace(record, pids={}))


def _stop_servers(stack_id: str, pids: Mapping[str, int]) -> None:
    """Stop Airflow's tasks first, while the API server can still record their state. Stop Postgres and S3 last."""
    stop_processes(find_strays(stack_id, pids.values()), signal.SIGTERM, _STRAY_STOP_TIMEOUT_SECONDS)
    for still_needed in ((*_STORAGE_SERVICES, API_SERVER), _STORAGE_SERVICES):
        needed_pids = [pids[name] for name in still_needed if name in pids]
        stop_processes(find_strays(stack_id, needed_pids), signal.SIGTERM, _STOP_TIMEOUT_SECONDS)
    if postgres := find_stack_process(pids.get(POSTGRES), stack_id):
        # On SIGINT, Postgres closes all sessions and shuts down cleanly. On SIGTERM, it would wait for its clients.
        stop_processes([postgres], signal.SIGINT, _POSTGRES_STOP_TIMEOUT_SECONDS)
    stop_processes(find_stack_processes(stack_id), signal.SIGTERM, _STRAY_STOP_TIMEOUT_SECONDS)
    if rest := find_stack_processes(stack_id):
        raise ConfigurationError(f"cannot stop the processes {[process.pid for process in rest]}: kill them yourself")


def _resolve_ports(stack: _Stack, wanted: WantedPorts) -> StackRecord:
    before = read_record(stack.folder)
    ports = choose_ports(wanted, before.ports if before else None)
    if before is None:
        record = StackRecord(ports)
    else:
        for name, old, new in (
            (POSTGRES, before.ports.postgres, ports.postgres),
            (S3_ENDPOINT, before.ports.s3, ports.s3),
            (API_SERVER, before.ports.airflow, ports.airflow),
            (QUERY_SERVICE, before.ports.query, ports.query),
        ):
            if old != new and find_stack_process(before.pids.get(name), stack.stack_id):
                raise ConfigurationError(f"{name} is running on port {old}, not {new}: run `catalog stack down` first")
        record = replace(before, ports=ports)
    write_record(stack.folder, record)
    return record


def _start_storage(stack: _Stack, record: StackRecord) -> StackRecord:
    """Start Postgres and S3, create databases and buckets, and write the environment file of the jobs."""
    password = stack.credentials.postgres_password
    create_cluster(stack.folder, password, stack.stack_id, stack.locate_log("initdb"))
    create_buckets(stack.folder)
    services = (
        make_postgres_service(stack.folder, record.ports.postgres, password, stack.stack_id),
        make_s3_service(stack.folder, record.ports.s3, stack.credentials),
    )
    record = _start_missing(stack, record, services)
    _wait_until_ready(stack, record, services)
    create_databases(record.ports.postgres, password, stack.credentials.database_password)
    lines = [f"{name}={value}\n" for name, value in _make_job_environment(stack, record).items()]
    write_private_file(stack.folder / LOCAL_STACK_ENVIRONMENT, "".join(lines))
    return record


def _start_all(stack: _Stack, record: StackRecord, options: AirflowOptions) -> None:
    """Start storage, the query service and Airflow, whose pages use the query service."""
    ports, credentials = record.ports, stack.credentials
    database_url = format_database_url(ports.postgres, credentials.database_password, "airflow", "postgresql+psycopg2")
    write_airflow_configuration(stack.folder, ports.airflow, database_url, credentials, options)
    job_environment = _make_job_environment(stack, record) if options.jobs_use_stack else {}
    environment = make_airflow_environment(stack.folder, job_environment, options.pool_slots)
    # If the jobs use another database, the settings may name its query service. Do not replace that one.
    environment.setdefault(QUERY_URL_SETTING, format_query_url(ports.query))
    services = make_airflow_services(environment, ports.airflow)
    query_service = make_query_service(environment, ports.query)
    launcher_log = stack.locate_log("airflow-launcher")
    is_complete = not _find_missing(stack, record, services)
    # Start the launcher early: it imports Airflow while Postgres starts.
    with nullcontext() if is_complete else AirflowLauncher(environment, stack.stack_id, launcher_log) as launcher:
        record = _start_storage(stack, record)
        record = _start_missing(stack, record, (query_service,))
        if launcher is not None:
            stack.progress.report("importing Airflow")
            record = _migrate_airflow(stack, record, launcher, environment)
            # Before the servers: a start that is stopped here lacks a server, and the next one sets the pool.
            set_pool = make_airflow_command(environment, "pools", "set", GPU_POOL, str(options.pool_slots), _POOL_TEXT)
            launcher.run_command(set_pool, stack.locate_log("airflow-pool"))
            record = _start_missing(stack, record, services, launcher.start_service)
    _wait_until_ready(stack, record, (query_service, *services))


def _migrate_airflow(
    stack: _Stack, record: StackRecord, launcher: AirflowLauncher, environment: Mapping[str, str]
) -> StackRecord:
    """Create or upgrade Airflow's own tables, unless the installed version has already done so."""
    version = read_airflow_version()
    if record.airflow_version == version:
        return record
    logger.info("migrating the tables of Airflow %s", version)
    stack.progress.report("migrating the tables of Airflow")
    launcher.run_command(make_airflow_command(environment, "db", "migrate"), stack.locate_log("airflow-db-migrate"))
    record = replace(record, airflow_version=version)
    write_record(stack.folder, record)
    return record


def _find_missing(stack: _Stack, record: StackRecord, services: Sequence[Service]) -> list[Service]:
    return [service for service in services if not find_stack_process(record.pids.get(service.name), stack.stack_id)]


def _start_missing(
    stack: _Stack, record: StackRecord, services: Sequence[Service], start: StartService = start_service
) -> StackRecord:
    for service in _find_missing(stack, record, services):
        if service.port is not None:
            require_free_port(service.port, service.port_setting)
        logger.info("starting %s", service.name)
        stack.progress.report(f"starting {service.name}")
        pid = start(service, stack.stack_id, stack.locate_log(service.name))
        record = replace(record, pids={**record.pids, service.name: pid})
        write_record(stack.folder, record)
    return record


def _wait_until_ready(stack: _Stack, record: StackRecord, services: Sequence[Service]) -> None:
    for number, service in enumerate(services):
        stack.progress.report(f"waiting for {service.name}", number, len(services), "services")
        wait_until_ready(service, record.pids[service.name], stack.stack_id, stack.locate_log(service.name))


def _make_job_environment(stack: _Stack, record: StackRecord) -> Mapping[str, str]:
    return {
        "CATALOG_DATABASE_URL": format_database_url(
            record.ports.postgres, stack.credentials.database_password, CATALOG_DATABASE
        ),
        **make_s3_environment(record.ports.s3, stack.credentials),
        QUERY_URL_SETTING: format_query_url(record.ports.query),
    }
