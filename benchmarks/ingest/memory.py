"""Whether memory stays flat over 20,000 photos in one process, by engine.

    python -m benchmarks.ingest.memory
    python -m benchmarks.ingest.memory --photos 4000

The photos are real ones, over and over, each with bytes of its own, so that none is known from before. All of them are
one shard of `python -m jobs ingest`, from a real S3 endpoint into Postgres with a live index. What the process has
resident is read five times a second; it grows by what it has at most after 2,000 photos beyond what it had at most in
the thousand before, when models, pools and buffers were there already.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.filled_stack import FilledStack, forget_answers, measure_forward, open_filled_stack
from benchmarks.machine import describe_machine
from benchmarks.materials import (
    Way,
    build_artifacts,
    find_photos,
    list_ways,
    load_calibration,
    multiply_photos,
    write_checkpoints,
)
from jobs.settings import PROJECT_ROOT

SETTLING, SETTLED = 1000, 2000
SECONDS_BETWEEN_SAMPLES = 0.2
COMMITTED = re.compile(r"shard 0: (\d+) of")


@dataclass(frozen=True)
class Sample:
    """Photos committed so far, and resident bytes of the tagging process and of its decoding processes."""

    photos: int
    own_bytes: int
    decoding_bytes: int


@dataclass(frozen=True)
class Memory:
    """In bytes; ``growth`` and ``peak`` are of the tagging process, ``tree_peak`` counts the decoding ones as well."""

    photos: int
    peak: int
    tree_peak: int
    growth: int
    decoding_growth: int


@dataclass(frozen=True)
class Measurement:
    """One run, and the bare forward pass of its models right after it."""

    memory: Memory
    images_per_second: float
    forward_images_per_second: float


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-memory.json")
    arguments = parser.parse_args()
    if arguments.photos <= SETTLED:
        parser.error(f"--photos must be more than {SETTLED}")
    real = find_photos(1000)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        photos = multiply_photos(real.paths, arguments.photos, scratch / "photos")
        calibration, checkpoints = load_calibration(real.paths), write_checkpoints(scratch)
        torch, *_, fastest = list_ways()
        measured = {}
        for way in (fastest, torch):
            models = build_artifacts(checkpoints, way, calibration, scratch / way.engine)
            with open_filled_stack(photos, models, scratch / f"stack-{way.engine}") as stack:
                measured[way] = _measure(stack, len(photos))
            _print_measurement(way, measured[way])
    summary = {
        **describe_machine("torch", "openvino"),
        "photo_kind": real.kind,
        "ways": {str(way): asdict(one) for way, one in measured.items()},
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"{real.kind}; {summary['cores']} cores of {summary['processor']}")


def _measure(stack: FilledStack, photos: int) -> Measurement:
    forget_answers(stack)
    environment = os.environ | stack.environment | {"CATALOG_SHARD_SIZE": str(photos)}
    command = [sys.executable, "-m", "jobs", "ingest"]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        progress = _Progress(process.stderr)
        samples: list[Sample] = []
        while process.poll() is None:
            samples += _take_sample(process.pid, progress.photos)
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        progress.join()
        output = process.stdout.read()
    if process.returncode or progress.photos != photos:
        sys.exit(f"the job failed after {progress.photos} photos: {''.join(progress.lines[-20:])}")
    return Measurement(
        memory=summarise(samples),
        images_per_second=json.loads(output.splitlines()[-1])["images_per_second"],
        forward_images_per_second=measure_forward(stack.models),
    )


def summarise(samples: Sequence[Sample]) -> Memory:
    """What a process took, by samples in the order of time."""
    settling = [sample for sample in samples if SETTLING <= sample.photos < SETTLED]
    settled = [sample for sample in samples if sample.photos >= SETTLED]

    def grow(values: Iterable[int], before: Iterable[int]) -> int:
        return max(values) - max(before)

    return Memory(
        photos=samples[-1].photos,
        peak=max(sample.own_bytes for sample in samples),
        tree_peak=max(sample.own_bytes + sample.decoding_bytes for sample in samples),
        growth=grow((one.own_bytes for one in settled), (one.own_bytes for one in settling)),
        decoding_growth=grow((one.decoding_bytes for one in settled), (one.decoding_bytes for one in settling)),
    )


class _Progress(threading.Thread):
    """Reads the job's log, and knows how many photos it says are committed."""

    def __init__(self, log: Iterable[str]) -> None:
        super().__init__()
        self.photos = 0
        self.lines: list[str] = []
        self._log = log
        self.start()

    def run(self) -> None:
        for line in self._log:
            self.lines.append(line)
            if committed := COMMITTED.search(line):
                self.photos = int(committed[1])


def _take_sample(pid: int, photos: int) -> list[Sample]:
    try:
        process = psutil.Process(pid)
        decoding = sum(child.memory_info().rss for child in process.children(recursive=True))
        return [Sample(photos, process.memory_info().rss, decoding)]
    except psutil.NoSuchProcess:
        return []


def _print_measurement(way: Way, measured: Measurement) -> None:
    memory, speed, forward = measured.memory, measured.images_per_second, measured.forward_images_per_second
    print(
        f"{way}, {memory.photos} photos: peak {memory.peak / 1e6:.0f} MB, with decoding processes "
        f"{memory.tree_peak / 1e6:.0f}; after {SETTLED} photos {memory.growth / 1e6:+.0f} MB, the decoding processes "
        f"{memory.decoding_growth / 1e6:+.0f}; {speed:.1f} of {forward:.1f} images/s: {speed / forward:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
