"""Measure the disk and memory that the training images take: write 200,000 generated ones and read them once.

    python -m benchmarks.training.image_shards
    python -m benchmarks.training.image_shards --images 20000

The images are read as in a training: at random, in batches, decoded by workers and kept for one step. Memory is the
proportional set size of this process and its workers, twice a second. The figures for a million images scale the disk
and the tables of rows, labels and places.
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from torch.utils.data import DataLoader

from benchmarks.results import publish
from benchmarks.training.generated_images import make_rows, write_generated
from jobs.images.geometry import Geometry
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.train.requests import STRONG
from jobs.retrain.train.training_images import AugmentedImages, take_batch
from jobs.scratch import open_scratch

GEOMETRY = Geometry(256, 256, keep_aspect=False, interpolation="bicubic")
BATCH_SIZE = 64
WORKERS = 2
MILLION = 1_000_000
GIGABYTE = 1e9


class PeakMemory:
    """The largest sum of memory, in bytes, of this process and its workers."""

    def __init__(self) -> None:
        self.peak = 0

    def update(self) -> int:
        """Measure now, and return the sum."""
        total = 0
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            # A worker may have ended.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        self.peak = max(self.peak, total)
        return total


@contextmanager
def watch_memory() -> Iterator[PeakMemory]:
    """Measure the memory twice a second during the block."""
    memory, is_over = PeakMemory(), threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            memory.update()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        is_over.set()
        thread.join()


def main() -> None:
    """Measure and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    count = parser.parse_args().images
    with open_scratch() as scratch, watch_memory() as memory:
        folder = scratch / "shards"
        written = _measure_speed(count, lambda: write_generated(folder, count, GEOMETRY))
        disk = sum(path.stat().st_size for path in folder.iterdir())
        before = memory.update()
        rows, images = make_rows(count, "train"), _open_images(folder, count)
        tables = memory.update() - before
        memory.peak = 0
        read = _measure_speed(count, lambda: _read_all(images))
        del rows
    scale = MILLION / count
    publish(
        "Storing training images",
        f"{count:,} generated images of 256 px, made of real ones: written as JPEGs into Arrow files, then read at "
        f"random and decoded by {WORKERS} workers in batches of {BATCH_SIZE}. Memory includes the workers, the rows of "
        "the snapshot and the labels.",
        [
            {
                "images": count,
                "disk, GB": round(disk / GIGABYTE, 2),
                "peak memory, GB": round(memory.peak / GIGABYTE, 2),
                "of it tables, GB": round(tables / GIGABYTE, 2),
                "a million: disk, GB": round(scale * disk / GIGABYTE, 1),
                "a million: memory, GB": round((memory.peak + (scale - 1) * tables) / GIGABYTE, 2),
                "written, images/s": round(written),
                "decoded, images/s": round(read),
            }
        ],
        targets="for a million, 25 GB of disk and 4 GB of memory",
        packages=["torch", "pyarrow", "pillow"],
    )


def _measure_speed(images: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def _open_images(folder: Path, count: int) -> AugmentedImages:
    shards = ImageShards(folder, GEOMETRY.crop_to)
    assert len(shards) == count
    return AugmentedImages(shards, {"labels": torch.arange(count) % 10}, STRONG, 224, seed=1)


def _read_all(images: AugmentedImages) -> None:
    loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=WORKERS, collate_fn=take_batch)
    assert sum(len(batch["pixels"]) for batch in loader) == len(images)


if __name__ == "__main__":
    main()
