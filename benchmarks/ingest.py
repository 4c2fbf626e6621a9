"""Images per second from bucket to committed rows, beside the bare forward pass of the same models.

    make bench                          1,000 photos, three interleaved rounds
    python -m benchmarks.ingest --photos 200 --rounds 1

Everything is real: an S3 endpoint, Postgres with a live HNSW index, and the job's own command in a process of its
own. ResNet-18 and a CLIP of ViT-B/32 size have random weights, on which speed does not depend. A round times the
pipeline and the forward pass one after the other; ratios are taken inside a round, since machines are noisy.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from sqlalchemy import text

from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.sample_catalog import SampleCatalogSpec, render_sample_catalog
from jobs.local.stack import start_stack, stop_stack
from jobs.settings import PROJECT_ROOT, Settings
from jobs.training.blank_checkpoints import write_blank_clip, write_blank_resnet18
from tests.champions import make_champion
from tests.local.stack_access import read_environment

REAL_PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", PROJECT_ROOT.parent / "shared/data/clothing-small"))
CATEGORIES = [f"category-{number}" for number in range(10)]
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
    photos, kind = _find_photos(arguments.photos)
    with _open_bench(photos) as bench:
        rounds = [_measure_round(bench, len(photos)) for _ in range(arguments.rounds)]
    summary = {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "photos": len(photos),
        "photo_kind": kind,
        "rounds": [asdict(one) for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    _print_table(summary, rounds)


def _find_photos(count: int) -> tuple[list[Path], str]:
    if REAL_PHOTOS.is_dir():
        return sorted(REAL_PHOTOS.glob("*/*/*.jpg"))[:: max(1, 3409 // count)][:count], "real photos of 400 x 533"
    catalog = render_sample_catalog(
        PROJECT_ROOT / ".local" / "bench-sample", SampleCatalogSpec(labelled_products=1, unlabelled_products=count // 2)
    )
    return sorted(catalog.unlabelled_folder.glob("*.jpg"))[
        :count
    ], "rendered photos, since CATALOG_REAL_PHOTOS is absent"


@contextmanager
def _open_bench(photos: list[Path]) -> Iterator[Bench]:
    """Start a stack, fill its bucket, and make a live space with an index."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        start_stack(folder / "stack", WantedPorts(), None)
        environment = read_environment(folder / "stack") | {
            "CATALOG_MODEL_CACHE": str(folder / "models"),
            "CATALOG_FAILED_SHARE_LIMIT": "0",
        }
        os.environ.update(environment)
        migrate(environment["CATALOG_DATABASE_URL"])
        with connect(Settings()) as connections:  # type: ignore[call-arg]
            classifier, encoder = _promote_models(connections, folder)
            bench = Bench(connections, environment, classifier, encoder)
            for number, photo in enumerate(photos):
                connections.store.upload(photo, connections.source / f"sku{number:05d}.jpg")
            _run_ingest(bench, "--limit", str(WARM_UP_PHOTOS))
            yield bench
    finally:
        stop_stack(folder / "stack")
        shutil.rmtree(folder)


def _promote_models(connections: Connections, folder: Path) -> tuple[Path, Path]:
    classifier, encoder = folder / "resnet-18", folder / "clip-vit-b-32"
    write_blank_resnet18(classifier, 224, CATEGORIES)
    write_blank_clip(encoder, 224, patch_side=32, width=768, dimensions=512, layers=12, texts=["red striped dress"])
    make_champion(connections, classifier, "classifier")
    make_champion(connections, encoder, "encoder")
    return classifier, encoder


def _measure_round(bench: Bench, photos: int) -> Round:
    _forget_answers(bench)
    report, peak, tree_peak = _run_ingest(bench)
    assert report["tagged"] + report["reused"] == photos, report
    forward = _run_forward(bench)
    speed = report["images_per_second"]
    stages = {name: report[f"{name}_seconds"] for name in ("read", "decode", "predict", "write")}
    result = Round(speed, forward, speed / forward, peak, tree_peak, stages)
    print(f"  pipeline {speed:.1f}, forward {forward:.1f} images/s: {result.share_of_forward:.2f}", flush=True)
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
    speeds: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])["images_per_second"]
    return max(speeds.values())


def name_processor() -> str:
    """The model of this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _print_table(summary: dict[str, Any], rounds: list[Round]) -> None:
    def show(values: list[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    print(f"\n{summary['photos']} {summary['photo_kind']}; {summary['cores']} cores of {summary['processor']}")
    print(f"share of the bare forward   {show([one.share_of_forward for one in rounds], 2)}")
    print(f"bucket to committed rows    {show([one.images_per_second for one in rounds], 1)} images/s")
    print(f"bare forward, best way      {show([one.forward_images_per_second for one in rounds], 1)} images/s")
    print(f"peak memory, tagging process {show([one.peak_memory_bytes / 1e9 for one in rounds], 2)} GB")
    print(f"  with decoding processes   {show([one.peak_tree_memory_bytes / 1e9 for one in rounds], 2)} GB")


if __name__ == "__main__":
    main()
