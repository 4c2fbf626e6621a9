"""The photos of a snapshot: their bytes in the artifacts, and their pixels, decoded once and kept on disk."""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.geometry import Geometry
from jobs.progress import SILENT, Progress
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.scratch import open_scratch
from jobs.storage.layout import example_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)

UNUSED_DAYS = 15
"""Pixels are kept so long after their last use: two weekly trainings on the same photos decode them once."""


@dataclass(frozen=True)
class SnapshotPhotos:
    """Reads photos by their content hash; ``cache`` is a folder of this machine that outlives a job."""

    store: ObjectStore
    artifacts: S3Uri
    cache: Path
    progress: Progress = SILENT

    def read(self, content_hash: str) -> bytes:
        """The bytes of a photo.

        Raises:
            PermanentError: they are missing, or not those that were labelled.
        """
        location = example_location(self.artifacts, content_hash)
        content = self.store.read(location)
        if hashlib.sha256(content).hexdigest() != content_hash:
            raise PermanentError(f"{location} was altered since it was labelled: import its label again")
        return content

    def load_pixels(self, rows: Sequence[SnapshotRow], geometry: Geometry) -> torch.Tensor:
        """Decode and resize as the tagger does: uint8 [n, 3, crop_to, crop_to], in the order of the rows.

        The pixels lie in a file of the cache and not in memory; a second call with the same photos finds them there,
        also one of another process, which waits for them if they are being decoded.
        """
        if not rows:
            return torch.empty((0, 3, geometry.crop_to, geometry.crop_to), dtype=torch.uint8)
        path = self.cache / "pixels" / f"{_name_pixels(rows, geometry)}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _mark_used(path):
            with _hold_lock(path.with_suffix(".lock")):
                if not _mark_used(path):
                    _delete_unused(path.parent)
                    self._decode_all(rows, geometry, path)
        # Private to this process: torch wants memory that it may write to.
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def _decode_all(self, rows: Sequence[SnapshotRow], geometry: Geometry, path: Path) -> None:
        log.info("decoding %d photos to %d pixels", len(rows), geometry.crop_to)
        shape = (len(rows), 3, geometry.crop_to, geometry.crop_to)
        with open_scratch(path.parent) as scratch:
            staged = scratch / path.name
            pixels = open_memmap(staged, mode="w+", dtype=np.uint8, shape=shape)

            def decode(position: int) -> None:
                pixels[position] = self._decode(rows[position], geometry).numpy()

            with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
                decoded = pool.map(decode, range(len(rows)))
                list(self.progress.track("decoding photos", decoded, len(rows)))
            pixels.flush()
            staged.rename(path)

    def _decode(self, row: SnapshotRow, geometry: Geometry) -> torch.Tensor:
        limits = DecodeLimits.for_labelled_photo(2 * geometry.resize_to)
        decoded = decode_image(self.read(row.content_hash), limits)
        if not isinstance(decoded, DecodedImage):
            raise PermanentError(f"labelled photo {row.content_hash}: {decoded.reason} ({decoded.detail})")
        return geometry.apply(np.ascontiguousarray(decoded.pixels))


def _mark_used(path: Path) -> bool:
    """False where there is no such file."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Let one process in at a time; the lock ends with its process."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Those who wait hold the same file, and find the pixels when they are let in.
            path.unlink(missing_ok=True)


def _delete_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for path in folder.glob("*.npy"):
        if path.stat().st_mtime < oldest:
            log.info("deleting %s, which was not used for %d days", path.name, UNUSED_DAYS)
            path.unlink(missing_ok=True)


def _name_pixels(rows: Sequence[SnapshotRow], geometry: Geometry) -> str:
    digest = hashlib.sha256(repr(sorted(asdict(geometry).items())).encode())
    for row in rows:
        digest.update(bytes.fromhex(row.content_hash))
    return digest.hexdigest()[:32]
