"""Measure the query service under load from a second process: requests per second, latency, failures and memory.

    python -m benchmarks.serving.query_service
    python -m benchmarks.serving.query_service --seconds 5 --clients 8

The service runs as in production, on a real stack. Its live models are OpenVINO graphs in int8: a ResNet-18 and a CLIP
of ViT-B/32 size. Clients send real images without a pause. In the last two rounds, another classifier or another
encoder goes live. Clients, Postgres and the S3 endpoint share the cores with the service.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks.images import find_images, link_images
from benchmarks.results import Row, publish
from benchmarks.serving.load_clients import Load
from benchmarks.tagging_stack import TaggingStack, open_int8_stack, read_memory
from fixtures.champions import make_champion
from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.local.ports import find_free_port
from jobs.models.image_model import read_build, write_build
from jobs.settings import PROJECT_ROOT

READY_SECONDS = 120.0
TARGETS = "mean of 200 ms, 100 classifications/s, 1 % failed, 2 GB"


class MemoryWatch:
    """Records the peak memory of a process since the last `take`, without and with its children."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks = (0, 0)

    def run(self, stop: threading.Event) -> None:
        """Sample five times a second."""
        while not stop.wait(0.2):
            own, tree = read_memory(self._pid)
            self._peaks = (max(self._peaks[0], own), max(self._peaks[1], tree))

    def take(self) -> tuple[int, int]:
        """Return the peaks and reset them."""
        peaks, self._peaks = self._peaks, (0, 0)
        return peaks


@dataclass(frozen=True)
class RunningService:
    """A service that is ready."""

    url: str
    memory: MemoryWatch
    images: Path
    seconds: float

    def measure(self, path: str, clients: int, switch: Callable[[], object] | None = None, name: str = "") -> Row:
        """Measure one path under load. Call ``switch`` after a third of the time."""
        self.memory.take()
        command = [sys.executable, "-m", "benchmarks.serving.load_clients", self.url, path, str(clients)]
        with subprocess.Popen(
            [*command, str(self.seconds), str(self.images)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE
        ) as process:
            if switch:
                time.sleep(self.seconds / 3)
                switch()
            output, _ = process.communicate()
        assert process.returncode == 0
        row = make_row(name or path, clients, Load(**json.loads(output)), self.memory.take())
        print(f"  {row}", flush=True)
        return row


def main() -> None:
    """Measure all rounds and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    images = find_images(arguments.images)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open_int8_stack(images.paths) as stack:
        folder = link_images(images.paths, Path(scratch) / "images")
        with run_service(stack, folder, arguments.seconds) as service:
            rows = measure_rounds(service, stack, Path(scratch), arguments.clients)
    publish(
        "The query service",
        "`python -m jobs serve` under load from a second process with connections that stay open, "
        f"{images.kind}, {arguments.seconds:.0f} s per row: ResNet-18 and a CLIP ViT-B/32 in int8, the text tower in "
        f"float32. Clients, Postgres and the S3 endpoint shared the cores; load {load_before:.1f} before.",
        rows,
        targets=TARGETS,
        packages=["openvino", "torch", "fastapi", "uvicorn"],
    )


def measure_rounds(service: RunningService, stack: TaggingStack, scratch: Path, clients: int) -> list[Row]:
    """Measure with one client, with many clients, and finally during switches."""
    classifier = register_other_version(stack, "classifier", stack.models.classifier, scratch / "classifier")
    encoder = register_other_version(stack, "encoder", stack.models.encoder, scratch / "encoder")
    few = clients // 2
    return [
        service.measure("/classify", 1),
        service.measure("/classify", clients),
        service.measure("/embed-image", 1),
        service.measure("/embed-image", few),
        service.measure("/embed-text", 1),
        service.measure("/embed-text", clients // 4),
        service.measure(
            "/classify", clients, lambda: switch_classifier(stack, classifier), "/classify, classifier switches"
        ),
        service.measure("/embed-image", few, lambda: switch_encoder(stack, encoder), "/embed-image, encoder switches"),
    ]


@contextmanager
def run_service(stack: TaggingStack, images: Path, seconds: float) -> Iterator[RunningService]:
    """Start the service and wait until it has both models. Send it SIGTERM at the end of the block."""
    port = find_free_port()
    environment = os.environ | stack.environment | {"CATALOG_SERVE_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "jobs", "serve"], cwd=PROJECT_ROOT, env=environment) as process:
        stop, memory = threading.Event(), MemoryWatch(process.pid)
        watch = threading.Thread(target=memory.run, args=(stop,))
        watch.start()
        try:
            service = RunningService(f"http://127.0.0.1:{port}", memory, images, seconds)
            started = time.perf_counter()
            wait_until_ready(service.url)
            print(f"ready after {time.perf_counter() - started:.1f} s, {memory.take()[1] / 1e9:.2f} GB", flush=True)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            stop.set()
            watch.join()
    assert process.returncode == 0, process.returncode


def wait_until_ready(url: str) -> None:
    """Wait until both models are loaded."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"{url}/health was not OK within {READY_SECONDS:.0f} s")


def register_other_version(stack: TaggingStack, kind: ModelKind, folder: Path, copy: Path) -> ModelVersion:
    """Register the same weights as another version and make it the champion, but not live."""
    shutil.copytree(folder, copy)
    build = read_build(copy)
    assert build
    write_build(copy, replace(build, temperature=2.0))
    return make_champion(stack.connections, copy, kind)


def switch_classifier(stack: TaggingStack, version: ModelVersion) -> None:
    """Make another classifier live."""
    with stack.connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", version.model_version_id, None))


def switch_encoder(stack: TaggingStack, version: ModelVersion) -> None:
    """Make another encoder live, with an empty space."""
    with stack.connections.engine.begin() as connection:
        space_id = open_space(connection, version.model_version_id, version.vector_dimensions)
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)


def make_row(name: str, clients: int, load: Load, peaks: tuple[int, int]) -> Row:
    """Return the figures of one round."""
    failed = sum(load.failures.values())
    assert load.milliseconds, load.failures
    p50, p95, p99, maximum = (round(float(value)) for value in np.percentile(load.milliseconds, [50, 95, 99, 100]))
    return {
        "request": name,
        "clients": clients,
        "requests/s": round(len(load.milliseconds) / load.seconds, 1),
        "mean, ms": round(float(np.mean(load.milliseconds))),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "maximum": maximum,
        "requests": len(load.milliseconds) + failed,
        "failed": failed,
        "memory, GB": f"{peaks[0] / 1e9:.2f}",
        "with decoding processes, GB": f"{peaks[1] / 1e9:.2f}",
    }


if __name__ == "__main__":
    main()
