"""Measure whether the memory of one process grows over 20,000 images, for two engines.

    python -m benchmarks.ingest.memory
    python -m benchmarks.ingest.memory --images 4000

Real images are repeated with different bytes, so that no result is reused. `python -m jobs ingest` tags them in one
shard, from a real S3 endpoint into Postgres with a live index. Resident memory is read five times a second. Growth is
the peak after 2,000 images minus the peak during the thousand before, when models, pools and buffers are already
loaded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from benchmarks.images import find_images, multiply_images
from benchmarks.models import ModelFormat, build_artifacts, list_formats, write_checkpoints
from benchmarks.results import Row, publish
from benchmarks.tagging_stack import (
    MEMORY_PERIOD_SECONDS,
    TaggingStack,
    delete_results,
    measure_forward,
    open_tagging_stack,
    read_memory,
)
from jobs.settings import PROJECT_ROOT

SETTLING, SETTLED = 1000, 2000


@dataclass(frozen=True)
class Sample:
    """The images committed so far, and the resident bytes of the tagging process and of its decoding processes."""

    images: int
    own_bytes: int
    decoding_bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes of the tagging process; ``tree_peak`` includes its decoding processes."""

    images: int
    peak: int
    tree_peak: int
    growth: int
    decoding_growth: int


def main() -> None:
    """Measure the fastest format and torch, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.images <= SETTLED:
        parser.error(f"--images must be more than {SETTLED}")
    real = find_images(1000)
    torch, *_, fastest = list_formats()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        images = multiply_images(real.paths, arguments.images, scratch / "images")
        checkpoints = write_checkpoints(scratch)
        rows = []
        for chosen in (fastest, torch):
            models = build_artifacts(checkpoints, chosen, real.paths, scratch / chosen.engine)
            with open_tagging_stack(images, models, {"CATALOG_SHARD_SIZE": str(len(images))}) as stack:
                rows.append(_measure(stack, chosen, len(images)))
    publish(
        "Memory",
        f"Resident memory of one process over {len(images):,} images, read five times a second. Growth is the peak "
        "after 2,000 images minus the peak of the thousand before.",
        rows,
        targets="growth of 50 MB, peak of 1 GB (2 GB with torch), 0.90 of the forward pass",
        packages=["torch", "openvino"],
    )


def _measure(stack: TaggingStack, chosen: ModelFormat, images: int) -> Row:
    delete_results(stack)
    before = _count_committed(stack)
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "jobs", "ingest"],
            cwd=PROJECT_ROOT,
            env=os.environ | stack.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        samples: list[Sample] = []
        while process.poll() is None:
            own, tree = read_memory(process.pid)
            if own:
                samples.append(Sample(_count_committed(stack) - before, own, tree - own))
            time.sleep(MEMORY_PERIOD_SECONDS)
        output = process.stdout.read()
        committed = _count_committed(stack) - before
        if process.returncode or committed != images:
            log.seek(0)
            sys.exit(f"ingest failed after {committed} images: {log.read()[-2000:]}")
    memory = summarize(samples)
    speed, forward = json.loads(output.splitlines()[-1])["images_per_second"], measure_forward(stack.models)
    return {
        "engine": str(chosen),
        "images": committed,
        "peak, MB": round(memory.peak / 1e6),
        "with decoding processes, MB": round(memory.tree_peak / 1e6),
        "growth, MB": round(memory.growth / 1e6),
        "growth of decoding processes, MB": round(memory.decoding_growth / 1e6),
        "images/s": round(speed, 1),
        "forward pass, images/s": round(forward, 1),
        "share of forward pass": f"{speed / forward:.2f}",
    }


def summarize(samples: Sequence[Sample]) -> Memory:
    """Return the peaks and growth of samples, which are in chronological order."""
    settling = [sample for sample in samples if SETTLING <= sample.images < SETTLED]
    settled = [sample for sample in samples if sample.images >= SETTLED]

    def grow(values: Iterable[int], before: Iterable[int]) -> int:
        return max(values) - max(before)

    return Memory(
        images=samples[-1].images,
        peak=max(sample.own_bytes for sample in samples),
        tree_peak=max(sample.own_bytes + sample.decoding_bytes for sample in samples),
        growth=grow((one.own_bytes for one in settled), (one.own_bytes for one in settling)),
        decoding_growth=grow((one.decoding_bytes for one in settled), (one.decoding_bytes for one in settling)),
    )


def _count_committed(stack: TaggingStack) -> int:
    with stack.connections.engine.connect() as connection:
        images: int = connection.execute(text("SELECT coalesce(sum(entries), 0) FROM catalog.run_chunks")).scalar_one()
    return images


if __name__ == "__main__":
    main()
