"""A local stack to measure the job on: photos in its bucket, two champions, and a live space with an index."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from benchmarks.materials import Checkpoints, Way, build_artifacts, load_calibration, write_checkpoints
from fixtures.champions import make_champion
from fixtures.stack_access import read_environment
from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.local.airflow_services import AirflowOptions
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack, stop_stack
from jobs.settings import PROJECT_ROOT, load_settings

WARM_UP_PHOTOS = 16
FORWARD_SECONDS = 8.0
FIRST_BATCH = re.compile(r"first batch predicted ([0-9.]+) s after")


@dataclass(frozen=True)
class FilledStack:
    """A running stack, and the models that its champions were made of."""

    connections: Connections
    environment: dict[str, str]
    models: Checkpoints
    status: StackStatus


@dataclass(frozen=True)
class MeasuredRun:
    """A run of `ingest`: its report, peaks of resident memory in bytes, and seconds from start to first answers.

    ``tree_peak`` counts the decoding processes as well.
    """

    report: dict[str, Any]
    peak: int
    tree_peak: int
    first_batch_seconds: float


@contextmanager
def open_filled_stack(
    photos: list[Path], models: Checkpoints, folder: Path, airflow: AirflowOptions | None = None
) -> Iterator[FilledStack]:
    """Start a stack, fill its bucket, and make a live space with an index; nothing outlives the block."""
    chosen = {"CATALOG_MODEL_CACHE": str(folder / "models"), "CATALOG_FAILED_SHARE_LIMIT": "0"}
    os.environ.update(chosen)
    try:
        status = start_stack(folder, WantedPorts(), airflow)
        environment = read_environment(folder) | chosen
        migrate(environment["CATALOG_DATABASE_URL"])
        os.environ.update(environment)
        with connect(load_settings()) as connections:
            make_champion(connections, models.classifier, "classifier")
            make_champion(connections, models.encoder, "encoder")
            stack = FilledStack(connections, environment, models, status)
            for number, photo in enumerate(photos):
                connections.store.upload(photo, connections.source / f"sku{number:05d}.jpg")
            run_ingest(stack, "--limit", str(WARM_UP_PHOTOS))
            yield stack
    finally:
        stop_stack(folder)


@contextmanager
def open_int8_stack(photos: list[Path], airflow: AirflowOptions | None = None) -> Iterator[FilledStack]:
    """One whose champions are the fastest that every processor computes: for what asks how photos flow."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        scratch = Path(parent)
        way = Way("openvino", "int8")
        models = build_artifacts(write_checkpoints(scratch), way, load_calibration(photos), scratch / "int8")
        with open_filled_stack(photos, models, scratch / "stack", airflow) as stack:
            yield stack


def forget_answers(stack: FilledStack) -> None:
    """Make every photo due again; the space stays live, with its index."""
    with stack.connections.engine.begin() as connection:
        for statement in (
            "DELETE FROM catalog.image_tags",
            "DELETE FROM catalog.image_embeddings",
            "UPDATE catalog.images SET content_hash = NULL",
        ):
            connection.execute(text(statement))
    # Dead rows would be walked through by the next run, as they are not in a shop.
    with stack.connections.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE catalog.images, catalog.image_tags, catalog.image_embeddings"))


def run_ingest(stack: FilledStack, *options: str) -> MeasuredRun:
    """Run the job as a user does, in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "jobs", "ingest", *options]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=os.environ | stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        peaks = [0, 0]
        while process.poll() is None:
            own, tree = measure_memory(process.pid)
            peaks = [max(peaks[0], own), max(peaks[1], tree)]
            time.sleep(0.2)
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read().decode()
    if process.returncode:
        sys.exit(f"the job failed: {errors[-2000:]}")
    first_batch = FIRST_BATCH.search(errors)
    assert first_batch, errors
    return MeasuredRun(json.loads(output.splitlines()[-1]), peaks[0], peaks[1], float(first_batch[1]))


def measure_forward(models: Checkpoints) -> float:
    """Images per second of the bare forward pass of the same models, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ingest.forward", str(models.classifier), str(models.encoder)]
    finished = subprocess.run([*command, str(FORWARD_SECONDS)], cwd=PROJECT_ROOT, check=True, capture_output=True)
    speed: float = json.loads(finished.stdout.splitlines()[-1])
    return speed


def measure_memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and of it with all that it started; 0 once it has ended."""
    try:
        process = psutil.Process(pid)
        own = process.memory_info().rss
        return own, own + sum(child.memory_info().rss for child in process.children(recursive=True))
    except psutil.NoSuchProcess:
        return 0, 0
