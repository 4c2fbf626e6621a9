"""Read the images of a snapshot: bytes from the artifacts, resized images from a cache on disk."""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image

from jobs.cores import count_cores
from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.geometry import Geometry
from jobs.progress import SILENT, Progress
from jobs.retrain.snapshot.image_shards import ImageShards, encode, write_shards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri, example_location
from jobs.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

UNUSED_DAYS = 15
"""Cached images are deleted this long after their last use, so two consecutive weekly trainings share them."""
BATCH_SIZE = 512
"""Images that are encoded before they are written to a shard."""


@dataclass(frozen=True)
class SnapshotImages:
    """Reads images by content hash. ``cache`` is a local folder that persists between jobs."""

    store: ObjectStore
    artifacts: S3Uri
    cache: Path
    progress: Progress = SILENT

    def read(self, content_hash: str) -> bytes:
        """Return the bytes of an image.

        Raises:
            PermanentError: the bytes are missing, or differ from the labeled bytes.
        """
        location = example_location(self.artifacts, content_hash)
        content = self.store.read(location)
        if hashlib.sha256(content).hexdigest() != content_hash:
            raise PermanentError(f"{location} was modified after it was labeled. Import its label again")
        return content

    def decode(self, content_hash: str, target_side: int) -> DecodedImage:
        """Decode an image and shrink it, but not below ``target_side``.

        Raises:
            PermanentError: the bytes are missing, were modified, or cannot be decoded.
        """
        decoded = decode_image(self.read(content_hash), DecodeLimits.for_labeled_image(target_side))
        if not isinstance(decoded, DecodedImage):
            raise PermanentError(f"cannot decode labeled image {content_hash}: {decoded.reason} ({decoded.detail})")
        return decoded

    def load_pixels(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> torch.Tensor:
        """Decode and resize images like the ingest flow: uint8 [n, 3, crop_to, crop_to], in the order of the rows.

        The tensor is a memory-mapped file in the cache. Later calls with the same rows reuse the file. If another
        process is decoding the same rows, wait for it.
        """
        if not rows:
            return torch.empty((0, 3, geometry.crop_to, geometry.crop_to), dtype=torch.uint8)
        path = self.cache / "pixels" / f"{_name_images(rows, geometry)}.npy"
        _write_once(path, lambda staged: self._write_pixels(rows, geometry, staged))
        # Copy on write, because torch requires writable memory.
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def load_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> ImageShards:
        """Decode and resize images like `load_pixels`, and store them as JPEGs, a tenth of the size.

        The shards are in the cache. Later calls with the same rows reuse them. If another process is writing the same
        rows, wait for it.
        """
        path = self.locate_shards(rows, geometry)
        _write_once(path, lambda staged: self._write_shards(rows, geometry, staged))
        return ImageShards(path, geometry.crop_to)

    def locate_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> Path:
        """Return the folder of these shards. It may not exist."""
        return self.cache / "shards" / f"{_name_images(rows, geometry)}.jpegs"

    def _write_pixels(self, rows: Sequence[SnapshotRow], geometry: Geometry, path: Path) -> None:
        log.info("decoding %d images to %d pixels", len(rows), geometry.crop_to)
        shape = (len(rows), 3, geometry.crop_to, geometry.crop_to)
        pixels = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

        def decode(position: int) -> None:
            pixels[position] = self._resize(rows[position], geometry).transpose(2, 0, 1)

        with _open_pool() as pool:
            decoded = pool.map(decode, range(len(rows)))
            list(self.progress.track("decoding images", decoded, len(rows)))
        pixels.flush()

    def _write_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry, path: Path) -> None:
        log.info("encoding %d images of %d pixels", len(rows), geometry.crop_to)
        with _open_pool() as pool:
            # Batches bound the memory: a pool computes ahead of a slow consumer without limit.
            batches = (
                list(pool.map(lambda row: encode(self._resize(row, geometry)), rows[start : start + BATCH_SIZE]))
                for start in range(0, len(rows), BATCH_SIZE)
            )
            write_shards(path, self.progress.track("decoding images", batches, len(rows), size=BATCH_SIZE))

    def _resize(self, row: SnapshotRow, geometry: Geometry) -> np.ndarray:
        """Return uint8 pixels [crop_to, crop_to, 3]."""
        image = self.decode(row.content_hash, 2 * geometry.resize_to)
        return geometry.resize(Image.fromarray(image.pixels))


def _open_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2 * count_cores())


def _write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file or folder of the cache unless it exists. Rename it when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _mark_used(path):
        return
    with _hold_lock(path.with_suffix(".lock")):
        if _mark_used(path):
            return
        _delete_unused(path.parent, path.suffix)
        with open_scratch(path.parent) as scratch:
            staged = scratch / path.name
            write(staged)
            staged.rename(path)


def _mark_used(path: Path) -> bool:
    """Update the modification time. Return False if the file does not exist."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes. The operating system releases it when the process ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Safe: waiting processes have this file open, and look for the images again once they hold the lock.
            path.unlink(missing_ok=True)


def _delete_unused(folder: Path, suffix: str) -> None:
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for path in folder.glob(f"*{suffix}"):
        if path.stat().st_mtime < oldest:
            log.info("deleting %s, unused for %d days", path.name, UNUSED_DAYS)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _name_images(rows: Sequence[SnapshotRow], geometry: Geometry) -> str:
    digest = hashlib.sha256(repr(sorted(asdict(geometry).items())).encode())
    for row in rows:
        digest.update(bytes.fromhex(row.content_hash))
    return digest.hexdigest()[:32]
