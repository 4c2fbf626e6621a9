"""Measure how the tagging rate grows with the number of workers that share one Postgres.

    python -m benchmarks.scenarios.worker_scaling
    python -m benchmarks.scenarios.worker_scaling --workers 1 4 --images 256

A stand-in model sleeps instead of computing, as if each worker had a GPU of its own. Everything else is real: workers
are processes that read from the S3 endpoint, decode, and write vectors into a live index, chunk by chunk. The workers,
the endpoint and Postgres share the cores of this machine.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import psutil
from sqlalchemy import text

from benchmarks.models import ModelFolders
from benchmarks.results import Row, format_share, publish
from benchmarks.tagging_stack import TaggingStack, delete_results, open_tagging_stack
from demo.blank_checkpoints import write_blank_clip
from fixtures.shop import CATEGORIES, IMAGE_SIDE, make_image
from fixtures.small_classifier import write_small_classifier
from jobs.connections import connect
from jobs.cores import count_cores
from jobs.database.model_builds import DeviceClass, EngineName
from jobs.database.tagging_runs import RunModels
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.ingest.pipeline import RunPredictor
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.tag_shard import tag_shard
from jobs.ingest.write import UsedBuilds
from jobs.models.predictor import Predictor
from jobs.settings import make_settings

WORKERS = (1, 2, 4, 8, 12, 16)
DIMENSIONS = 512
BATCH_SIZE = 16
BATCH_SECONDS = 0.32
"""A model that tags 50 images per second."""
GEOMETRY = Geometry(IMAGE_SIDE, IMAGE_SIDE, keep_aspect=True, interpolation="bicubic")
SHARDS_PER_WORKER = 2
SAMPLE_SECONDS = 0.1
START_SECONDS = 300.0
RUN_SECONDS = 1800.0
TARGET = 0.95
BUSY_SHARE = 0.9
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Measurement:
    """Images per second, the cores that each group of processes kept busy, and samples of active sessions."""

    workers: int
    rate: float
    cores: Mapping[str, float]
    waits: Counter[str]

    def compute_efficiency(self, single: "Measurement") -> float:
        """Divide the rate by that of as many workers that do not share a database."""
        return self.rate / self.workers * single.workers / single.rate

    def describe_waits(self) -> str:
        """Return the most common waits of active sessions."""
        total = self.waits.total() or 1
        return ", ".join(f"{name} {format_share(count / total)}" for name, count in self.waits.most_common(3))


@dataclass(frozen=True)
class SleepingModel:
    """A model that sleeps and returns random outputs with a row for each image."""

    seconds: float
    categories: tuple[str, ...]
    engine: EngineName = "torch"
    description: str = "a model that sleeps"
    device_class: DeviceClass = "cpu"
    geometry: Geometry = GEOMETRY
    batch_size: int = BATCH_SIZE
    passes: int = 1

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return random probabilities, or random unit vectors if there are no categories."""
        time.sleep(self.seconds)
        outputs = np.random.default_rng().standard_normal((len(pixels), len(self.categories) or DIMENSIONS))
        if self.categories:
            exponentials = np.exp(outputs)
            return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)
        return np.asarray(outputs / np.linalg.norm(outputs, axis=1, keepdims=True), np.float32)


class ThreadDecoder:
    """Decode in the calling thread. A real worker has processes for that, which here would compete for the cores."""

    def decode(self, decoder: Callable[[bytes], Any], contents: Sequence[bytes]) -> list[Any]:
        """Decode images."""
        return [decoder(content) for content in contents]


class Sampler:
    """Sample what the sessions of the workers wait for, and the processor time of each group of processes."""

    def __init__(self, stack: TaggingStack, workers: Sequence[int]) -> None:
        self._engine = stack.connections.engine
        pids = {service.name: service.pid for service in stack.status.services if service.pid}
        self._roots = {"workers": list(workers), "Postgres": [pids["postgres"]], "S3 endpoint": [pids["s3"]]}
        self._started = time.time()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._seconds: dict[tuple[str, int], tuple[float, float]] = {}
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def add_up_cores(self, seconds: float) -> dict[str, float]:
        """Return the number of cores that each group of processes kept busy."""
        groups = dict.fromkeys(self._roots, 0.0)
        for (name, _), (first, last) in self._seconds.items():
            groups[name] += (last - first) / seconds
        return groups

    def _sample(self) -> None:
        statement = text("""
            SELECT coalesce(wait_event_type || ' ' || wait_event, 'none: running'), count(*) FROM pg_stat_activity
            WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database() GROUP BY 1
        """)
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._is_over.wait(SAMPLE_SECONDS):
                self._read_processors()
                for name, count in connection.execute(statement):
                    self.waits[name] += count

    def _read_processors(self) -> None:
        for name, roots in self._roots.items():
            for root in roots:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(root)
                    for one in (process, *process.children(recursive=True)):
                        self._read_processor(name, one)

    def _read_processor(self, name: str, process: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent = times.user + times.system
            # A process that started later counts from its start.
            before = 0.0 if process.create_time() > self._started else spent
            first = self._seconds.get((name, process.pid), (before, spent))[0]
            self._seconds[name, process.pid] = (first, spent)


def main() -> None:
    """Measure all numbers of workers and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--images", type=int, default=1536, help="images for each worker")
    arguments = parser.parse_args()
    settings = {"CATALOG_SHARD_SIZE": str(arguments.images // SHARDS_PER_WORKER), "CATALOG_BATCH_SIZE": str(BATCH_SIZE)}
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        images = _write_images(Path(parent) / "images", arguments.images * max(arguments.workers))
        with open_tagging_stack(images, _write_models(Path(parent)), settings) as stack:
            measurements = _measure_all(stack, sorted(arguments.workers), arguments.images)
    publish(
        "Workers that share one database",
        f"Processes with a stand-in model that sleeps {BATCH_SECONDS} s for {BATCH_SIZE} images, on "
        f"{arguments.images:,} new images each, with one Postgres and one S3 endpoint on the same cores. Efficiency is "
        "the rate divided by that of as many single workers. Active sessions are samples in Postgres, by wait. "
        f"{describe_limit(measurements, count_cores())}",
        make_rows(measurements),
        targets=f"efficiency of {TARGET} until the database is the limit",
    )


def _write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(make_image(number))
    return sorted(folder.iterdir())


def _write_models(folder: Path) -> ModelFolders:
    """Write small models, of which only the categories and the size of the vectors matter."""
    models = ModelFolders(folder / "classifier", folder / "encoder")
    write_small_classifier(models.classifier, CATEGORIES)
    write_blank_clip(
        models.encoder, IMAGE_SIDE, patch_side=16, width=64, dimensions=DIMENSIONS, layers=2, texts=["hat"]
    )
    return models


def _measure_all(stack: TaggingStack, numbers: Sequence[int], images: int) -> list[Measurement]:
    measurements = []
    for workers in numbers:
        measurements.append(_measure(stack, workers, workers * images))
        print(measurements[-1], flush=True)
    return measurements


def make_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """Compare the rates with that of the smallest number of workers."""
    return [
        {
            "workers": one.workers,
            "images/s": round(one.rate, 1),
            "efficiency": round(one.compute_efficiency(measurements[0]), 3),
            **{f"cores of {name}": round(busy, 2) for name, busy in one.cores.items()},
            "active sessions": one.describe_waits(),
        }
        for one in measurements
    ]


def describe_limit(measurements: Sequence[Measurement], cores: int) -> str:
    """Say up to which rate the efficiency reaches the target, and what limits a larger number of workers."""
    *_, best = takewhile(lambda one: one.compute_efficiency(measurements[0]) >= TARGET, measurements)
    beyond = [one for one in measurements if one.workers > best.workers]
    reached = f"The efficiency is at least {TARGET} up to {best.workers} workers, {best.rate:,.0f} images per second."
    if not beyond:
        return f"{reached} No limit was reached."
    limited = beyond[0]
    busy = sum(limited.cores.values())
    if busy >= BUSY_SHARE * cores:
        users = ", ".join(f"{name} {used:.1f}" for name, used in limited.cores.items())
        return f"{reached} Beyond, all {cores} cores are busy: {users}."
    return f"{reached} Beyond, {busy:.1f} of {cores} cores are busy, and sessions wait: {limited.describe_waits()}."


def _measure(stack: TaggingStack, workers: int, images: int) -> Measurement:
    """Tag new images with a number of workers."""
    delete_results(stack)
    run_id = f"scaling-{workers}-{time.time():.0f}"
    plan = plan_run(stack.connections, run_id, IngestOptions(limit=images))
    assert plan.entries == images, plan
    barrier = _FORK.Barrier(workers + 1)
    # Connections do not survive a fork.
    stack.connections.engine.dispose()
    processes = [
        _FORK.Process(target=_work, args=(stack.environment, run_id, plan.shards[number::workers], barrier))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait(START_SECONDS)
        started = time.monotonic()
        with Sampler(stack, [process.pid for process in processes if process.pid]) as sampler:
            for process in processes:
                process.join(RUN_SECONDS)
        seconds = time.monotonic() - started
    finally:
        for process in processes:
            process.kill()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"workers ended with {[process.exitcode for process in processes]}")
    return Measurement(workers, images / seconds, sampler.add_up_cores(seconds), sampler.waits)


def _work(environment: Mapping[str, str], run_id: str, shards: Sequence[int], barrier: Barrier) -> None:
    """Tag shards as a task does, with models that sleep."""
    predictor = Predictor(SleepingModel(0, CATEGORIES), SleepingModel(BATCH_SECONDS, ()))
    with connect(make_settings(environment)) as connections:
        with connections.engine.connect() as connection:
            statement = text("""
                SELECT kind, build_id FROM catalog.model_builds JOIN catalog.model_versions USING (model_version_id)
            """)
            builds: dict[str, int] = {kind: build for kind, build in connection.execute(statement)}  # noqa: C416

        def load(_: RunModels) -> RunPredictor:
            return RunPredictor(predictor, UsedBuilds(builds["classifier"], builds["encoder"], "cpu"))

        barrier.wait(START_SECONDS)
        for shard in shards:
            tag_shard(connections, run_id, shard, load, cast(DecodePool, ThreadDecoder()))


if __name__ == "__main__":
    main()
