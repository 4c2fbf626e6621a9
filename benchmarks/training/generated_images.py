"""Generate labeled images of training size for benchmarks, and write them straight into the shards of a training."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.images import find_images
from jobs.images.geometry import Geometry
from jobs.retrain.snapshot.image_shards import encode, write_shards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow, Split

CATEGORIES = 10
BASES = 500
BATCH_SIZE = 512


def make_rows(count: int, split: Split) -> tuple[SnapshotRow, ...]:
    """Make rows with categories, products and texts like those of a shop."""
    names = [hashlib.sha256(f"{split} {number}".encode()).hexdigest() for number in range(count)]
    return tuple(
        SnapshotRow(
            name,
            name,
            f"category-{number % CATEGORIES}",
            f"red striped dress {number}",
            f"{split} {number // 3}",
            split,
        )
        for number, name in enumerate(names)
    )


def write_generated(folder: Path, count: int, geometry: Geometry) -> None:
    """Write different JPEGs: real images, or rendered ones if there are none, shifted by random distances."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_shards(folder, _generate(count, geometry, find_images(BASES).paths))


def _generate(count: int, geometry: Geometry, paths: Sequence[Path]) -> Iterator[list[bytes]]:
    bases = [geometry.resize(Image.open(path).convert("RGB")) for path in paths]

    def generate(number: int) -> bytes:
        shift = np.random.default_rng(number).integers(0, geometry.crop_to, 2)
        return encode(np.roll(bases[number % len(bases)], shift, (0, 1)))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, count, BATCH_SIZE):
            yield list(pool.map(generate, range(start, min(start + BATCH_SIZE, count))))
