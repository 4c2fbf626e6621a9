"""Measure the disk and memory that labeled images take: generate 200,000, read them once, and score the test images.

    python -m benchmarks.training.image_shards
    python -m benchmarks.training.image_shards --images 20000

Nine of ten images are for training and validation. They are read as in a training: at random, in batches, decoded by
workers and kept for one step. One of ten is a test image, which a ResNet-18 predicts as in an evaluation, from original
bytes of 400 x 533. Memory is the proportional set size of this process and its workers, twice a second. The figures for
a million images scale the disk and the tables of rows, labels and places.
"""

import argparse
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from torch.utils.data import DataLoader

from benchmarks.images import find_images
from benchmarks.models import CATEGORIES, SIDE
from benchmarks.results import publish
from benchmarks.training.generated_images import make_rows, write_generated
from demo.blank_checkpoints import write_blank_resnet18
from jobs.images.geometry import Geometry
from jobs.models.device import choose_device
from jobs.retrain.evaluate.served_model import ServedModel, load_trained_model
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.retrain.train.requests import STRONG
from jobs.retrain.train.training_images import AugmentedImages, take_batch
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri

GEOMETRY = Geometry(256, 256, keep_aspect=False, interpolation="bicubic")
BATCH_SIZE = 64
WORKERS = 2
BASES = 500
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
    tested = count // 10
    trained = count - tested
    with open_scratch() as scratch, watch_memory() as memory:
        folder = scratch / "shards"
        written = _measure_speed(trained, lambda: write_generated(folder, trained, GEOMETRY))
        disk = sum(path.stat().st_size for path in folder.iterdir())
        before = memory.update()
        rows, images = make_rows(count, "train"), _open_images(folder, trained)
        tables = memory.update() - before
        memory.peak = 0
        read = _measure_speed(trained, lambda: _read_all(images))
        training_peak = memory.peak
        shutil.rmtree(folder)
        model, store = _load_model(scratch), _Originals(tested)
        memory.peak = 0
        scored = _measure_speed(tested, lambda: _score_all(model, store))
        del rows
    scale = MILLION / count
    publish(
        "Storing training images",
        f"{count:,} labeled images, generated from real ones. {trained:,} to train and validate: written as JPEGs of "
        f"256 px into Arrow files, then read at random and decoded by {WORKERS} workers in batches of {BATCH_SIZE}. "
        f"{tested:,} test images of 400 x 533: decoded and predicted by a ResNet-18, which stores nothing. Memory "
        "includes the workers, the rows of the snapshot and the labels.",
        [
            {
                "images": count,
                "disk, GB": round(disk / GIGABYTE, 2),
                "peak memory, GB": round(training_peak / GIGABYTE, 2),
                "of it tables, GB": round(tables / GIGABYTE, 2),
                "a million: disk, GB": round(scale * disk / GIGABYTE, 1),
                "a million: memory, GB": round((training_peak + (scale - 1) * tables) / GIGABYTE, 2),
                "written, images/s": round(written),
                "decoded, images/s": round(read),
                "test: peak memory, GB": round(memory.peak / GIGABYTE, 2),
                "scored, images/s": round(scored),
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


class _Originals:
    """A store of different images, made of real ones with a number after the last byte of each."""

    def __init__(self, count: int) -> None:
        self._bases = [path.read_bytes() for path in find_images(BASES).paths]
        self._numbers = {hashlib.sha256(self._make(number)).hexdigest(): number for number in range(count)}
        self.rows = [SnapshotRow(name, name, "category-0", "", name, "test") for name in self._numbers]

    def _make(self, number: int) -> bytes:
        return self._bases[number % len(self._bases)] + number.to_bytes(8)

    def read(self, location: S3Uri) -> bytes:
        """Return the bytes of an image."""
        return self._make(self._numbers[location.key.rpartition("/")[2]])


def _load_model(scratch: Path) -> ServedModel:
    write_blank_resnet18(scratch / "resnet-18", SIDE, CATEGORIES)
    return load_trained_model(scratch / "resnet-18", "classifier", choose_device("auto", "auto"))


def _score_all(model: ServedModel, store: _Originals) -> None:
    images = SnapshotImages(store, S3Uri("artifacts", ""))  # type: ignore[arg-type]
    model.predict_in_batches(store.rows, lambda batch: images.load_pixels(batch, model.geometry))


def _read_all(images: AugmentedImages) -> None:
    loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=WORKERS, collate_fn=take_batch)
    assert sum(len(batch["pixels"]) for batch in loader) == len(images)


if __name__ == "__main__":
    main()
