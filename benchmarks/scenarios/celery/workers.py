"""Run Celery workers, as many as the query of the chart's KEDA trigger returns."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from sqlalchemy import Engine, create_engine, text

from benchmarks.scenarios.celery.hub import Hub
from benchmarks.scenarios.celery.network import Machine, Network
from jobs.database.engine import driver_url

QUEUE = "default"
POLL_SECONDS = 1.0
COOLDOWN_SECONDS = 15.0
"""Time for which the query must return 0 before the last workers end. KEDA waits for five minutes by default."""
GRACE_SECONDS = 300.0
"""As in docker-compose.yaml."""


@dataclass
class Worker:
    """A worker on a machine of its own. ``is_leaving`` if it was stopped or killed."""

    machine: Machine
    process: "subprocess.Popen[bytes]"
    is_leaving: bool = False

    def stop(self, seconds: float) -> bool:
        """Send SIGTERM as `docker stop` and Kubernetes do; kill after some time. Return whether it ended by itself."""
        self.is_leaving = True
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.machine.kill()
            return False
        return True

    def kill(self) -> None:
        """End all processes of the machine."""
        self.is_leaving = True
        self.machine.kill()


class WorkerPool:
    """Start missing workers, and stop all of them after the last task."""

    def __init__(self, hub: Hub, network: Network, query: str, maximum: int) -> None:
        self._hub = hub
        self._network = network
        self._query = text(query)
        self._maximum = maximum
        self._engine: Engine = create_engine(driver_url(hub.format_database_url("airflow")))
        self._is_over, self._is_aborted = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self.workers: list[Worker] = []
        self.scale: list[tuple[float, int, int]] = []
        """Times at which the number changed, each with the number that the query returned and that of the workers."""

    @property
    def running(self) -> list[Worker]:
        """The workers that take tasks."""
        return [one for one in self.workers if not one.is_leaving and one.process.poll() is None]

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Adjust the number of workers during the block. At its end, wait until the query has stopped all workers.

        Raises:
            RuntimeError: a worker could not be started, or the number did not return to 0.
        """
        self._note(self.count_wanted())
        thread = threading.Thread(target=self._adjust, name="workers")
        thread.start()
        try:
            yield
            self._is_over.set()
            thread.join(COOLDOWN_SECONDS + GRACE_SECONDS)
        finally:
            self._is_aborted.set()
            thread.join()
            self._engine.dispose()
        if self._error or self.running:
            raise RuntimeError(f"the number of workers did not return to 0: {self._error}")

    def _adjust(self) -> None:
        try:
            idle_since: float | None = None
            while not self._is_aborted.wait(POLL_SECONDS):
                wanted = self.count_wanted()
                for _ in range(min(wanted, self._maximum) - len(self.running)):
                    self._start_worker()
                self._note(wanted)
                idle_since = None if wanted else idle_since or time.monotonic()
                if idle_since and time.monotonic() - idle_since > COOLDOWN_SECONDS:
                    for worker in self.running:
                        worker.stop(GRACE_SECONDS)
                    self._note(wanted)
                    if self._is_over.is_set():
                        return
        except Exception as error:  # noqa: BLE001 - raised by `follow`
            self._error = error

    def count_wanted(self) -> int:
        """Return the number of workers that the query asks for."""
        with self._engine.connect() as connection:
            return int(connection.execute(self._query).scalar_one())

    def _start_worker(self) -> None:
        machine = self._network.add_machine("worker")
        environment = self._hub.make_environment(machine.folder)
        command = ["airflow", "celery", "worker", "--concurrency", "1", "--queues", QUEUE, "--skip-serve-logs"]
        self.workers.append(Worker(machine, machine.start(command, environment)))

    def _note(self, wanted: int) -> None:
        numbers = (wanted, len(self.running))
        if not self.scale or self.scale[-1][1:] != numbers:
            self.scale.append((time.time(), *numbers))


def read_query(values: Path) -> str:
    """Return the KEDA query of the workers of `QUEUE` in the values of Airflow's chart."""
    sets = yaml.safe_load(values.read_text(encoding="utf-8"))["workers"]["celery"]["sets"]
    (query,) = (workers["keda"]["query"] for workers in sets if workers["queue"] == QUEUE)
    return str(query)
