"""A deployment of its own: a clone of the project, its ``.env``, and the containers that Compose starts from them."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.scenarios.compose.docker import FailedCommandError, run
from jobs.local.ports import find_free_port
from jobs.settings import PROJECT_ROOT

PROJECT = "catalog-check"
PORTS = ("CATALOG_POSTGRES_PORT", "CATALOG_S3_PORT", "CATALOG_AIRFLOW_PORT")
HOST_VARIABLES = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
START_SECONDS = 600
_RECIPE = re.compile(r"^#   \$ (.+)\n(?:# ([A-Z_]+)=$)?", re.MULTILINE)


@dataclass(frozen=True)
class Service:
    """A container. ``health`` is empty if it has no check."""

    name: str
    container: str
    state: str
    health: str
    exit_code: int

    @property
    def is_ready(self) -> bool:
        """Tell whether the service is healthy, or has done its work."""
        return self.health == "healthy" or (self.state == "exited" and self.exit_code == 0)


@dataclass(frozen=True)
class Deployment:
    """A running deployment in ``folder``. ``variables`` are those of its ``.env``."""

    folder: Path
    variables: dict[str, str]
    environment: dict[str, str]

    def run(self, command: str, seconds: float) -> str:
        """Run a line of shell in the folder, and return its output."""
        return run(["sh", "-ec", command], seconds, self.folder, self.environment)

    def list_services(self) -> list[Service]:
        """Return the containers, also those that have ended."""
        lines = self.run("docker compose ps --all --format json", 60).splitlines()
        return [
            Service(fields["Service"], fields["ID"], fields["State"], fields["Health"], fields["ExitCode"])
            for fields in map(json.loads, lines)
        ]

    def wait_until_ready(self, start: Future[str] | None = None) -> dict[str, float]:
        """Wait until every service is healthy and ``init`` has ended. Return the seconds from start to ready.

        ``start`` is the command that starts the services, if it may still be running.

        Raises:
            FailedCommandError: that command failed, or a service is not ready in time after it.
        """
        deadline, ready = time.monotonic() + START_SECONDS, dict[str, float]()
        while True:
            is_starting = start is not None and not start.done()
            services = self.list_services()
            for service in services:
                if service.is_ready and service.name not in ready:
                    ready[service.name] = self._measure_start(service)
            late = [service for service in services if not service.is_ready]
            if is_starting:
                deadline = time.monotonic() + START_SECONDS
            else:
                if start:
                    # Raises the error of the command.
                    start.result()
                if not late:
                    return ready
            if time.monotonic() > deadline:
                raise FailedCommandError(f"not ready after {START_SECONDS} s: {late}")
            time.sleep(1)

    def _measure_start(self, service: Service) -> float:
        state = json.loads(self.run(f"docker inspect --format '{{{{json .State}}}}' {service.container}", 60))
        checks = state["Health"]["Log"] if service.health else []
        end = next((check["End"] for check in checks if check["ExitCode"] == 0), state["FinishedAt"])
        return (_read_time(end) - _read_time(state["StartedAt"])).total_seconds()

    def read_memory(self) -> dict[str, float]:
        """Return the memory of each running container in MB, by service. Several of a service are averaged."""
        names = {service.container[:12]: service.name for service in self.list_services()}
        lines = self.run("docker stats --no-stream --format json", 60).splitlines()
        found: dict[str, list[float]] = {}
        for fields in map(json.loads, lines):
            if name := names.get(fields["ID"][:12]):
                found.setdefault(name, []).append(_read_megabytes(fields["MemUsage"].split(" / ")[0]))
        return {name: sum(sizes) / len(sizes) for name, sizes in found.items()}

    def read_image_sizes(self) -> dict[str, float]:
        """Return the size of each service's image in MB."""
        script = "docker inspect --format '{{.Image}}' CONTAINER | xargs docker image inspect --format '{{.Size}}'"
        return {
            service.name: int(self.run(script.replace("CONTAINER", service.container), 60)) / 1e6
            for service in self.list_services()
        }

    def remove(self) -> None:
        """Remove the containers, the network and the volumes."""
        # Not stopped first: a worker would take its five minutes for the current task.
        with suppress(FailedCommandError):
            self.run("docker compose --profile gpu kill", 60)
        self.run("docker compose --profile gpu down --volumes --remove-orphans --timeout 5", 180)

    def query(self, database: str, statement: str) -> str:
        """Run a statement as superuser, and return the rows, with columns separated by a bar."""
        options = f"--username=postgres --dbname={database} --no-align --tuples-only"
        return self.run(f'docker compose exec -T postgres psql {options} --command="{statement}"', 60).strip()


@contextmanager
def open_deployment(compose_files: Sequence[Path], settings: dict[str, str]) -> Iterator[Deployment]:
    """Clone the project and fill in its ``.env``. Afterwards, remove all containers and volumes."""
    with tempfile.TemporaryDirectory(prefix="compose-check-") as parent:
        folder = Path(parent) / "catalog-tagger"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(folder)], check=True, timeout=120)
        variables = _make_secrets(folder) | {name: str(find_free_port()) for name in PORTS} | settings
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        (folder / ".env").write_text((folder / ".env.example").read_text() + "".join(lines))
        environment = {name: os.environ[name] for name in HOST_VARIABLES if name in os.environ}
        environment |= {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": os.pathsep.join(["docker-compose.yaml", *map(str, compose_files)]),
        }
        deployment = Deployment(folder, variables, environment)
        # Left by a run that was killed.
        deployment.remove()
        try:
            yield deployment
        finally:
            deployment.remove()


def _make_secrets(folder: Path) -> dict[str, str]:
    """Run the commands in ``.env.example`` that make the secrets."""
    found = _RECIPE.findall((folder / ".env.example").read_text())
    # Two recipes stand in the heading, without a name below them.
    aws = iter(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return {name or next(aws): run(["sh", "-ec", recipe], 30).strip() for recipe, name in found}


def _read_time(text: str) -> datetime:
    """Read a time of Docker, which has nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text))


def _read_megabytes(text: str) -> float:
    """Read a size such as ``1.2GiB`` in MB."""
    number, unit = re.findall(r"([\d.]+)([KMG]?i?B)", text)[0]
    return float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit] / 1e6
