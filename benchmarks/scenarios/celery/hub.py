"""Run everything except workers on one machine: Postgres, an S3 endpoint, Redis, and Airflow with Celery.

Airflow has the settings of docker-compose.yaml that decide what happens to a task whose worker is lost.
"""

import configparser
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from benchmarks.scenarios.celery.network import HUB_ADDRESS, SUBNET
from fixtures.postgres import execute
from jobs.database.migrations import migrate
from jobs.local.airflow_services import (
    ADMIN_USER,
    GPU_POOL,
    TRIGGERER,
    AirflowLauncher,
    AirflowOptions,
    make_airflow_command,
    make_airflow_environment,
    make_airflow_services,
    write_airflow_configuration,
)
from jobs.local.ports import LOOPBACK, find_free_ports
from jobs.local.postgres import create_cluster, create_databases, format_database_url, make_postgres_service
from jobs.local.s3_endpoint import create_buckets, make_s3_environment, make_s3_service
from jobs.local.services import (
    STACK_ID_VARIABLE,
    Command,
    Service,
    find_stack_processes,
    identify_stack,
    start_service,
    stop_processes,
    wait_until_ready,
)
from jobs.local.stack_files import StackCredentials, load_credentials, write_private_file
from jobs.settings import HOME_VARIABLE, PROJECT_ROOT

EVERYWHERE = "0.0.0.0"
SINGLE_DATABASE = "single"
_REDIS = "redis"
_REDIS_PORT = 6379
_STOP_SECONDS = 10.0
_BROKER_SECONDS = 5.0
_TAKEN_FROM_COMPOSE = ("AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CELERY", "AIRFLOW__SCHEDULER__", "AIRFLOW__WORKERS__")


@dataclass(frozen=True)
class Hub:
    """The running servers. ``jobs`` is the environment of the jobs."""

    folder: Path
    stack_id: str
    credentials: StackCredentials
    ports: tuple[int, ...]
    jobs: dict[str, str]
    slots: int

    @property
    def airflow_url(self) -> str:
        """The URL of Airflow's API."""
        return f"http://{LOOPBACK}:{self.ports[2]}"

    @property
    def airflow_login(self) -> tuple[str, str]:
        """The name and password of the administrator."""
        return ADMIN_USER, self.credentials.airflow_password

    @property
    def broker_url(self) -> str:
        """The URL of Redis, with its password."""
        return f"redis://:{self.credentials.airflow_session_key}@{HUB_ADDRESS}:{_REDIS_PORT}/0"

    @property
    def access_log(self) -> Path:
        """The log of the S3 endpoint, with a line for each object that is read."""
        return self.locate_log("s3")

    def locate_log(self, name: str) -> Path:
        """Return the log of a server."""
        return self.folder / "logs" / f"{name}.log"

    def format_database_url(self, name: str) -> str:
        """Return the URL of a database, which all machines can use."""
        return _move(format_database_url(self.ports[0], self.credentials.database_password, name))

    def make_environment(self, home: Path) -> dict[str, str]:
        """Return the environment of Airflow and the jobs on one machine, whose files are in ``home``."""
        port, database_url = self.ports[2], self.format_database_url("airflow").replace("://", "+psycopg2://", 1)
        options = AirflowOptions(pool_slots=self.slots)
        write_airflow_configuration(home, port, database_url, self.credentials, options)
        _forget_sections(home / "airflow" / "airflow.cfg", "scheduler", "workers")
        own = {HOME_VARIABLE: str(home), "CATALOG_MODEL_CACHE": str(home / "models"), "TMPDIR": str(home)}
        return {
            **make_airflow_environment(home, self.jobs, self.slots),
            **own,
            **read_compose_settings(),
            "AIRFLOW__API__HOST": EVERYWHERE,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HUB_ADDRESS}:{port}/execution/",
            "AIRFLOW__CELERY__BROKER_URL": self.broker_url,
            "NO_PROXY": "*",
            "no_proxy": "*",
            STACK_ID_VARIABLE: self.stack_id,
        }

    def run_job(self, *words: str, database: str, seconds: float) -> None:
        """Run a job on this machine, on one of the databases.

        Raises:
            subprocess.SubprocessError: the job failed or took too long.
        """
        environment = os.environ | self.jobs | {"CATALOG_DATABASE_URL": self.format_database_url(database)}
        command = [sys.executable, "-m", "jobs", *words]
        with self.locate_log("job").open("ab") as log:
            subprocess.run(
                command, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log, check=True, timeout=seconds
            )

    def start_storage(self) -> None:
        """Start Postgres and the S3 endpoint, and create the catalog's tables."""
        password = self.credentials.postgres_password
        create_cluster(self.folder, password, self.stack_id, self.locate_log("initdb"))
        with (self.folder / "postgres" / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {SUBNET} scram-sha-256\n")
        create_buckets(self.folder)
        postgres = make_postgres_service(self.folder, self.ports[0], password, self.stack_id)
        self._start(_add_words(postgres, "-c", f"listen_addresses={EVERYWHERE}"))
        s3 = make_s3_service(self.folder, self.ports[1], self.credentials)
        # With this much detail, the log contains every read of an object.
        words = ("--addr", f"{HUB_ADDRESS}:{self.ports[1]}", "-vv", "--log-format", "date,time,microseconds")
        self._start(_add_words(s3, *words))
        create_databases(self.ports[0], password, self.credentials.database_password)
        migrate(self.format_database_url("catalog"))

    def copy_catalog(self) -> None:
        """Copy the catalog's database for the run of a single worker. Nothing may be connected to it."""
        url = f"postgresql://catalog:{self.credentials.postgres_password}@{LOOPBACK}:{self.ports[0]}/postgres"
        execute(url, f"CREATE DATABASE {SINGLE_DATABASE} TEMPLATE catalog OWNER tagger")

    def start_airflow(self) -> int:
        """Start the broker and all of Airflow except workers, and return the pid of the broker."""
        broker_pid = self.start_broker()
        environment = self.make_environment(self.folder)
        services = [one for one in make_airflow_services(environment, self.ports[2]) if one.name != TRIGGERER]
        with AirflowLauncher(environment, self.stack_id, self.locate_log("launcher")) as launcher:
            for words in (("db", "migrate"), ("pools", "set", GPU_POOL, str(self.slots), "One slot for each worker")):
                launcher.run_command(make_airflow_command(environment, *words), self.locate_log(f"airflow-{words[0]}"))
            pids = [launcher.start_service(one, self.stack_id, self.locate_log(one.name)) for one in services]
        for service, pid in zip(services, pids, strict=True):
            wait_until_ready(service, pid, self.stack_id, self.locate_log(service.name))
        return broker_pid

    def start_broker(self) -> int:
        """Start Redis as docker-compose.yaml does, and return its pid."""
        folder = self.folder / _REDIS
        folder.mkdir(exist_ok=True)
        settings = folder / "redis.conf"
        # Otherwise, its title would replace its environment, by which its processes are found.
        lines = (
            "set-proc-title no",
            f"requirepass {self.credentials.airflow_session_key}",
            "appendonly yes",
            f"dir {folder}",
        )
        write_private_file(settings, "\n".join([*lines, f"bind {HUB_ADDRESS}", f"port {_REDIS_PORT}", ""]))
        command = Command(("redis-server", str(settings)), os.environ, folder)
        return self._start(Service(_REDIS, command, lambda _: _is_broker_ready(self.credentials.airflow_session_key)))

    def end(self) -> None:
        """End all processes, also those of workers."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            stop_processes(find_stack_processes(self.stack_id), number, _STOP_SECONDS)

    def _start(self, service: Service) -> int:
        pid = start_service(service, self.stack_id, self.locate_log(service.name))
        wait_until_ready(service, pid, self.stack_id, self.locate_log(service.name))
        return pid


@contextmanager
def open_hub(folder: Path, slots: int, settings: Mapping[str, str]) -> Iterator[Hub]:
    """Prepare a hub, and end all of its processes at the end, those of its workers included."""
    folder.mkdir(mode=0o700)
    credentials, ports = load_credentials(folder), tuple(find_free_ports(3))
    jobs = {name: _move(value) for name, value in make_s3_environment(ports[1], credentials).items()}
    jobs["CATALOG_DATABASE_URL"] = _move(format_database_url(ports[0], credentials.database_password, "catalog"))
    hub = Hub(folder.resolve(), identify_stack(folder), credentials, ports, jobs | dict(settings), slots)
    try:
        yield hub
    finally:
        hub.end()


def read_compose_settings() -> dict[str, str]:
    """Return the settings in docker-compose.yaml about the executor, Celery, the scheduler and the workers."""
    compose = yaml.safe_load((PROJECT_ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
    settings: dict[str, str] = compose["x-airflow-environment"]
    return {name: value for name, value in settings.items() if name.startswith(_TAKEN_FROM_COMPOSE)}


def _forget_sections(configuration: Path, *sections: str) -> None:
    """Remove settings of the local stack that docker-compose.yaml does not have."""
    parser = configparser.RawConfigParser()
    parser.read(configuration)
    for section in sections:
        parser.remove_section(section)
    with configuration.open("w") as file:
        parser.write(file)


def _add_words(service: Service, *words: str) -> Service:
    command = service.command
    environment = {**command.environment, "TZ": "UTC"}
    return replace(service, command=replace(command, argv=(*command.argv, *words), environment=environment))


def _move(url: str) -> str:
    """Return the URL by which other machines reach a server of the hub."""
    return url.replace(LOOPBACK, HUB_ADDRESS)


def _is_broker_ready(password: str) -> bool:
    try:
        with socket.create_connection((HUB_ADDRESS, _REDIS_PORT), _BROKER_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return b"PONG" in connection.recv(100)
    except OSError:
        return False
