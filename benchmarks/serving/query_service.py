"""The query service under load from a second process: requests a second, milliseconds, failures and memory.

    python -m benchmarks.serving.query_service
    python -m benchmarks.serving.query_service --seconds 5 --clients 8

The service runs as a user starts it, over a real stack whose live models are ResNet-18 and a CLIP of ViT-B/32 size as
graphs of OpenVINO in int8. Clients ask real photos without a pause. In the last rounds other versions of the classifier
and the encoder go live in the middle. Clients share the cores with the service, as do Postgres and the S3 endpoint.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks.filled_stack import FilledStack, measure_memory, open_int8_stack
from benchmarks.machine import describe_machine
from benchmarks.materials import find_photos, link_photos
from benchmarks.serving.serve_load import Load
from fixtures.champions import make_champion
from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.local.ports import find_free_port
from jobs.models.image_model import read_build, write_build
from jobs.settings import PROJECT_ROOT

READY_SECONDS = 120.0
LONGEST_MEAN_MILLISECONDS, LEAST_RATE, LARGEST_FAILED_SHARE, MOST_MEMORY_BYTES = 200.0, 100.0, 0.01, 2_000_000_000


@dataclass(frozen=True)
class Round:
    """One path under load; memory is the peak of the service with its decoding processes, and its own."""

    name: str
    clients: int
    requests: int
    requests_per_second: float
    mean_milliseconds: float
    p50_milliseconds: float
    p95_milliseconds: float
    p99_milliseconds: float
    longest_milliseconds: float
    failed: int
    failed_share: float
    versions: dict[str, int]
    memory_bytes: int
    own_memory_bytes: int


class MemoryWatch:
    """Peaks of a process and of it with its children since they were last taken."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks = (0, 0)

    def run(self, stop: threading.Event) -> None:
        """Look five times a second."""
        while not stop.wait(0.2):
            own, tree = measure_memory(self._pid)
            self._peaks = (max(self._peaks[0], own), max(self._peaks[1], tree))

    def take(self) -> tuple[int, int]:
        """The peaks, which begin anew."""
        peaks, self._peaks = self._peaks, (0, 0)
        return peaks


@dataclass(frozen=True)
class MeasuredService:
    """A service that answers."""

    url: str
    memory: MemoryWatch
    photos: Path
    seconds: float

    def measure(self, name: str, path: str, clients: int, meanwhile: Callable[[], object] | None = None) -> Round:
        """Load one path; ``meanwhile`` is called after a third of the time."""
        self.memory.take()
        command = [
            sys.executable,
            "-m",
            "benchmarks.serving.serve_load",
            self.url,
            path,
            str(clients),
            str(self.seconds),
        ]
        with subprocess.Popen([*command, str(self.photos)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as process:
            if meanwhile:
                time.sleep(self.seconds / 3)
                meanwhile()
            output, _ = process.communicate()
        assert process.returncode == 0
        result = summarise(name, clients, Load(**json.loads(output)), self.memory.take())
        print(format_round(result), flush=True)
        return result


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-serve.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    machine = describe_machine("openvino", "torch", "fastapi", "uvicorn")
    load_before = os.getloadavg()[0]
    print(f"{photos.kind}; {machine['cores']} cores of {machine['processor']}, load {load_before:.1f} before")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open_int8_stack(photos.paths) as stack:
        folder = link_photos(photos.paths, Path(scratch) / "photos")
        with run_service(stack, folder, arguments.seconds) as service:
            rounds = measure_rounds(service, stack, Path(scratch), arguments.clients)
    summary = {**machine, "load_before": load_before, "rounds": [asdict(one) for one in rounds]}
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print("\n".join(judge(rounds)))


def measure_rounds(service: MeasuredService, stack: FilledStack, scratch: Path, clients: int) -> list[Round]:
    """One client, and then many; switches last."""
    classifier = register_other_version(stack, "classifier", stack.models.classifier, scratch / "classifier")
    encoder = register_other_version(stack, "encoder", stack.models.encoder, scratch / "encoder")
    few = clients // 2
    return [
        service.measure("classify", "/classify", 1),
        service.measure("classify", "/classify", clients),
        service.measure("embed-image", "/embed-image", 1),
        service.measure("embed-image", "/embed-image", few),
        service.measure("embed-text", "/embed-text", 1),
        service.measure("embed-text", "/embed-text", clients // 4),
        service.measure("classify, switch", "/classify", clients, lambda: switch_classifier(stack, classifier)),
        service.measure("embed-image, switch", "/embed-image", few, lambda: switch_encoder(stack, encoder)),
    ]


@contextmanager
def run_service(stack: FilledStack, photos: Path, seconds: float) -> Iterator[MeasuredService]:
    """Start the service as a user does, and wait until it has both models; it ends with the block, by SIGTERM."""
    port = find_free_port()
    environment = os.environ | stack.environment | {"CATALOG_SERVE_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "jobs", "serve"], cwd=PROJECT_ROOT, env=environment) as process:
        stop, memory = threading.Event(), MemoryWatch(process.pid)
        watch = threading.Thread(target=memory.run, args=(stop,))
        watch.start()
        try:
            service = MeasuredService(f"http://127.0.0.1:{port}", memory, photos, seconds)
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
    """Until both models answer."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit("the service did not get ready")


def register_other_version(stack: FilledStack, kind: ModelKind, folder: Path, copy: Path) -> ModelVersion:
    """The same weights as another version, which is the champion and not live yet."""
    shutil.copytree(folder, copy)
    build = read_build(copy)
    assert build
    write_build(copy, replace(build, temperature=2.0))
    return make_champion(stack.connections, copy, kind)


def switch_classifier(stack: FilledStack, version: ModelVersion) -> None:
    """Another classifier goes live."""
    with stack.connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", version.model_version_id, None))


def switch_encoder(stack: FilledStack, version: ModelVersion) -> None:
    """Another encoder goes live, with an empty space."""
    with stack.connections.engine.begin() as connection:
        space_id = open_space(connection, version.model_version_id, version.vector_dimensions)
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)


def summarise(name: str, clients: int, load: Load, peaks: tuple[int, int]) -> Round:
    """The figures of one round."""
    answered, failed = len(load.milliseconds), sum(load.failures.values())
    assert answered, load.failures
    p50, p95, p99, longest = (float(value) for value in np.percentile(load.milliseconds, [50, 95, 99, 100]))
    return Round(
        name=name,
        clients=clients,
        requests=answered + failed,
        requests_per_second=answered / load.seconds,
        mean_milliseconds=float(np.mean(load.milliseconds)),
        p50_milliseconds=p50,
        p95_milliseconds=p95,
        p99_milliseconds=p99,
        longest_milliseconds=longest,
        failed=failed,
        failed_share=failed / (answered + failed),
        versions=load.versions,
        memory_bytes=peaks[1],
        own_memory_bytes=peaks[0],
    )


def format_round(one: Round) -> str:
    """One line."""
    return (
        f"  {one.name:20} {one.clients:3} clients {one.requests_per_second:7.1f}/s  mean {one.mean_milliseconds:6.1f} "
        f"p50 {one.p50_milliseconds:6.1f} p95 {one.p95_milliseconds:6.1f} p99 {one.p99_milliseconds:6.1f} longest "
        f"{one.longest_milliseconds:6.1f} ms  failed {one.failed} of {one.requests}  versions {len(one.versions)}  "
        f"{one.own_memory_bytes / 1e9:.2f}, with decoders {one.memory_bytes / 1e9:.2f} GB"
    )


def judge(rounds: list[Round]) -> list[str]:
    """The service levels of the shop beside what was measured."""
    fastest = max(one.requests_per_second for one in rounds if one.name == "classify")
    slowest = max(one.mean_milliseconds for one in rounds)
    failed = max(one.failed_share for one in rounds)
    memory = max(one.memory_bytes for one in rounds)
    return [
        f"mean response at most {slowest:.0f} ms, bar {LONGEST_MEAN_MILLISECONDS:.0f}",
        f"classifications {fastest:.0f} a second, bar {LEAST_RATE:.0f}",
        f"failed at most {failed:.2%}, bar {LARGEST_FAILED_SHARE:.0%}",
        f"memory at most {memory / 1e9:.2f} GB, bar {MOST_MEMORY_BYTES / 1e9:.0f}",
    ]


if __name__ == "__main__":
    main()
