"""Images per second from bucket to committed rows, beside the bare forward pass of the same models.

    make bench                          1,000 photos, three interleaved rounds
    python -m benchmarks.ingest --photos 200 --rounds 1

Everything is real: an S3 endpoint, Postgres with a live HNSW index, and the job's own command in a process of its
own. ResNet-18 and a CLIP of ViT-B/32 size have random weights, on which speed does not depend, as production artifacts
of each engine and precision that this processor has. A round times the pipeline and the forward pass of one way after
the other; ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from sqlalchemy import text

from benchmarks.materials import SIDE, Checkpoints, Way, build_artifacts, find_photos, list_ways, write_checkpoints
from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack
from jobs.models.geometry import Geometry
from jobs.production.quantise import CALIBRATION_PHOTOS
from jobs.settings import PROJECT_ROOT, Settings
from tests.champions import make_champion
from tests.local.stack_access import read_environment

FORWARD_SECONDS = 8.0
WARM_UP_PHOTOS = 16


@dataclass(frozen=True)
class Round:
    """One measurement of both; memory in bytes, of the tagging process and with its decoding processes."""

    images_per_second: float
    forward_images_per_second: float
    share_of_forward: float
    peak_memory_bytes: int
    peak_tree_memory_bytes: int
    seconds_by_stage: dict[str, float]


@dataclass(frozen=True)
class Bench:
    """A running stack, its photos, and the checkpoints to compare."""

    connections: Connections
    environment: dict[str, str]
    classifier: Path
    encoder: Path


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    rounds: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, ExitStack() as stack:
        checkpoints = write_checkpoints(Path(scratch))
        calibration = _load_calibration(photos.paths)
        benches = {
            str(way): stack.enter_context(_open_bench(photos.paths, checkpoints, way, calibration, Path(scratch)))
            for way in list_ways()
        }
        for _ in range(arguments.rounds):
            for way, bench in benches.items():
                rounds.setdefault(way, []).append(_measure_round(bench, way, len(photos.paths)))
    summary = {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in ("torch", "openvino", "nncf")},
        "photos": len(photos.paths),
        "photo_kind": photos.kind,
        "rounds": {way: [asdict(one) for one in measured] for way, measured in rounds.items()},
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    _print_table(summary, rounds)


def _load_calibration(photos: list[Path]) -> np.ndarray:
    geometry = Geometry(SIDE, SIDE, keep_aspect=True, interpolation="bicubic")
    opened = [Image.open(photo).convert("RGB") for photo in photos[:CALIBRATION_PHOTOS]]
    return np.stack([geometry.resize(photo) for photo in opened])


@contextmanager
def _open_bench(
    photos: list[Path], checkpoints: Checkpoints, way: Way, calibration: np.ndarray, scratch: Path
) -> Iterator[Bench]:
    """Start a stack, fill its bucket, and make a live space with an index."""
    folder = scratch / f"{way.engine}-{way.precision}"
    folder.mkdir()
    try:
        artifacts = build_artifacts(checkpoints, way, calibration, folder)
        start_stack(folder / "stack", WantedPorts(), None)
        environment = read_environment(folder / "stack") | {
            "CATALOG_MODEL_CACHE": str(folder / "models"),
            "CATALOG_FAILED_SHARE_LIMIT": "0",
        }
        migrate(environment["CATALOG_DATABASE_URL"])
        os.environ.update(environment)
        with connect(Settings()) as connections:  # type: ignore[call-arg]
            make_champion(connections, artifacts.classifier, "classifier")
            make_champion(connections, artifacts.encoder, "encoder")
            bench = Bench(connections, environment, artifacts.classifier, artifacts.encoder)
            for number, photo in enumerate(photos):
                connections.store.upload(photo, connections.source / f"sku{number:05d}.jpg")
            _run_ingest(bench, "--limit", str(WARM_UP_PHOTOS))
            yield bench
    finally:
        stop_stack(folder / "stack")


def _measure_round(bench: Bench, way: str, photos: int) -> Round:
    _forget_answers(bench)
    report, peak, tree_peak = _run_ingest(bench)
    assert report["tagged"] + report["reused"] == photos, report
    forward = _run_forward(bench)
    speed = report["images_per_second"]
    stages = {name: report[f"{name}_seconds"] for name in ("read", "decode", "predict", "write")}
    result = Round(speed, forward, speed / forward, peak, tree_peak, stages)
    print(f"  {way}: pipeline {speed:.1f}, forward {forward:.1f} images/s: {result.share_of_forward:.2f}", flush=True)
    return result


def _forget_answers(bench: Bench) -> None:
    """Make every photo due again; the space stays live, with its index."""
    with bench.connections.engine.begin() as connection:
        for statement in (
            "DELETE FROM catalog.image_tags",
            "DELETE FROM catalog.image_embeddings",
            "UPDATE catalog.images SET content_hash = NULL",
        ):
            connection.execute(text(statement))


def _run_ingest(bench: Bench, *options: str) -> tuple[dict[str, Any], int, int]:
    """The job's report, its own peak of resident memory, and the peak of it and its children together."""
    command = [sys.executable, "-m", "jobs", "ingest", *options]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=os.environ | bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        peaks = [0, 0]
        while process.poll() is None:
            own, tree = _measure_memory(process.pid)
            peaks = [max(peaks[0], own), max(peaks[1], tree)]
            time.sleep(0.2)
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
    if process.returncode:
        sys.exit(f"the job failed: {errors.decode()[-2000:]}")
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report, peaks[0], peaks[1]


def _measure_memory(pid: int) -> tuple[int, int]:
    try:
        process = psutil.Process(pid)
        own = process.memory_info().rss
        return own, own + sum(child.memory_info().rss for child in process.children(recursive=True))
    except psutil.NoSuchProcess:
        return 0, 0


def _run_forward(bench: Bench) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.forward",
        str(bench.classifier),
        str(bench.encoder),
        str(FORWARD_SECONDS),
    ]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
    speed: float = json.loads(finished.stdout.splitlines()[-1])
    return speed


def name_processor() -> str:
    """The model of this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _print_table(summary: dict[str, Any], rounds: dict[str, list[Round]]) -> None:
    def show(values: list[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    print(f"\n{summary['photos']} {summary['photo_kind']}; {summary['cores']} cores of {summary['processor']}")
    print(" | ".join(["way", "share of the forward", "images/s", "forward, images/s", "GB", "GB with decoders"]))
    for way, measured in rounds.items():
        cells = (
            show([one.share_of_forward for one in measured], 2),
            show([one.images_per_second for one in measured], 1),
            show([one.forward_images_per_second for one in measured], 1),
            show([one.peak_memory_bytes / 1e9 for one in measured], 2),
            show([one.peak_tree_memory_bytes / 1e9 for one in measured], 2),
        )
        print(" | ".join([way, *cells]))


if __name__ == "__main__":
    main()
