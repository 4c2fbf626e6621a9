"""Disturb workers while they are in the middle of a shard."""

import signal
import time
from collections.abc import Callable

import psutil
from sqlalchemy import Engine

from benchmarks.scenarios.celery.hub import Hub
from benchmarks.scenarios.celery.ledger import Event, TaggedShard, list_tagged_shards
from benchmarks.scenarios.celery.workers import GRACE_SECONDS, Worker, WorkerPool
from jobs.local.services import stop_processes

CUT_SECONDS = 60.0
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.02
_BROKER_SECONDS = 30.0


class Disturber:
    """Cause one event after the other in a run."""

    def __init__(self, hub: Hub, pool: WorkerPool, engine: Engine, run_id: str, broker_pid: int) -> None:
        self._hub = hub
        self._pool = pool
        self._engine = engine
        self._run_id = run_id
        self._broker_pid = broker_pid
        self.events: list[Event] = []
        self.was_stopped_in_time = False

    def cause_all(self) -> None:
        """Cause all events, each to another worker.

        Raises:
            TimeoutError: no worker is in the middle of a shard.
        """
        self._record("restart the broker", self._restart_broker)
        self._record("stop a worker with grace", self._stop)
        self._record("kill a worker", Worker.kill)
        self._record("cut a worker off for 60 s", self._cut_off)

    def _record(self, name: str, disturb: Callable[[Worker], None]) -> None:
        worker, tagged = self._find_worker()
        is_hit = [shard for shard in tagged if shard.address == worker.machine.address]
        shards = tagged if disturb == self._restart_broker else is_hit
        print(f"{name}: {worker.machine.name}, shards {[(one.number, one.committed, one.chunks) for one in shards]}")
        self.events.append(Event(name, time.time(), frozenset(shard.number for shard in shards)))
        disturb(worker)

    def _find_worker(self) -> tuple[Worker, list[TaggedShard]]:
        """Return a worker that has committed a part of its shard, and all shards that are being tagged."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            tagged = list_tagged_shards(self._engine, self._run_id)
            midway = {shard.address for shard in tagged if shard.is_midway}
            for worker in self._pool.running:
                if worker.machine.address in midway:
                    return worker, tagged
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"no worker was in the middle of a shard within {_WAIT_SECONDS:.0f} s")

    def _stop(self, worker: Worker) -> None:
        self.was_stopped_in_time = worker.stop(GRACE_SECONDS)

    def _cut_off(self, worker: Worker) -> None:
        worker.machine.cut_off()
        time.sleep(CUT_SECONDS)
        worker.machine.reconnect()

    def _restart_broker(self, _: Worker) -> None:
        stop_processes([psutil.Process(self._broker_pid)], signal.SIGTERM, _BROKER_SECONDS)
        self._broker_pid = self._hub.start_broker()
