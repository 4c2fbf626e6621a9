"""Start a local stack to measure ingest: images in its bucket, two champions and a live space with an index."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from benchmarks.models import INT8, ModelFolders, build_artifacts, write_checkpoints
from benchmarks.stack import Stack, open_stack
from fixtures.champions import make_champion
from jobs.connections import Connections, connect
from jobs.local.airflow_services import AirflowOptions
from jobs.settings import PROJECT_ROOT, make_settings

WARM_UP_IMAGES = 16
FORWARD_SECONDS = 8.0
MEMORY_PERIOD_SECONDS = 0.2
FIRST_BATCH = re.compile(r"first batch predicted ([0-9.]+) s after")


@dataclass(frozen=True)
class TaggingStack(Stack):
    """A running stack, connections to it, and the models of its champions."""

    connections: Connections
    models: ModelFolders


@dataclass(frozen=True)
class IngestRun:
    """A run of `ingest`: its report, its peak memory in bytes, and the seconds until the first batch was predicted.

    ``tree_peak`` includes the decoding processes.
    """

    report: dict[str, Any]
    peak: int
    tree_peak: int
    first_batch_seconds: float


@contextmanager
def open_tagging_stack(
    images: list[Path],
    models: ModelFolders,
    settings: Mapping[str, str] | None = None,
    airflow: AirflowOptions | None = None,
) -> Iterator[TaggingStack]:
    """Start a stack, upload the images, and tag some of them to create a live space with an index."""
    chosen = {"CATALOG_FAILED_SHARE_LIMIT": "0", **(settings or {})}
    with open_stack(chosen, airflow) as empty, connect(make_settings(empty.environment)) as connections:
        make_champion(connections, models.classifier, "classifier")
        make_champion(connections, models.encoder, "encoder")
        for number, image in enumerate(images):
            connections.store.upload(image, connections.source / f"sku{number:05d}.jpg")
        stack = TaggingStack(empty.status, empty.environment, connections, models)
        run_ingest(stack, "--limit", str(WARM_UP_IMAGES))
        yield stack


@contextmanager
def open_int8_stack(
    images: list[Path], settings: Mapping[str, str] | None = None, airflow: AirflowOptions | None = None
) -> Iterator[TaggingStack]:
    """Open a stack whose champions are in int8, the fastest format that every processor supports."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        scratch = Path(parent)
        models = build_artifacts(write_checkpoints(scratch), INT8, images, scratch / "int8")
        with open_tagging_stack(images, models, settings, airflow) as stack:
            yield stack


def delete_results(stack: TaggingStack) -> None:
    """Delete tags and vectors to make every image due again. The space stays live and keeps its index."""
    with stack.connections.engine.begin() as connection:
        for statement in (
            "DELETE FROM catalog.image_tags",
            "DELETE FROM catalog.image_embeddings",
            "UPDATE catalog.images SET content_hash = NULL",
        ):
            connection.execute(text(statement))
    # Remove the dead rows, which a production catalog does not have and the next run would have to scan.
    with stack.connections.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE catalog.images, catalog.image_tags, catalog.image_embeddings"))


def run_ingest(stack: TaggingStack, *options: str) -> IngestRun:
    """Run the job in its own process.

    Raises:
        SystemExit: the job failed.
    """
    command = [sys.executable, "-m", "jobs", "ingest", *options]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=os.environ | stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        peaks = [0, 0]
        while process.poll() is None:
            own, tree = read_memory(process.pid)
            peaks = [max(peaks[0], own), max(peaks[1], tree)]
            time.sleep(MEMORY_PERIOD_SECONDS)
        assert process.stdout is not None
        assert process.stderr is not None
        output, log = process.stdout.read(), process.stderr.read().decode()
    if process.returncode:
        sys.exit(f"ingest failed: {log[-2000:]}")
    first_batch = FIRST_BATCH.search(log)
    assert first_batch, log
    return IngestRun(json.loads(output.splitlines()[-1]), peaks[0], peaks[1], float(first_batch[1]))


def measure_forward(models: ModelFolders) -> float:
    """Measure the images per second of the bare forward pass, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.ingest.forward", str(models.classifier), str(models.encoder)]
    finished = subprocess.run([*command, str(FORWARD_SECONDS)], cwd=PROJECT_ROOT, check=True, capture_output=True)
    speed: float = json.loads(finished.stdout.splitlines()[-1])
    return speed


def read_memory(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process, without and with its descendants; 0 if it has ended."""
    try:
        process = psutil.Process(pid)
        own = process.memory_info().rss
        return own, own + sum(child.memory_info().rss for child in process.children(recursive=True))
    except psutil.NoSuchProcess:
        return 0, 0
