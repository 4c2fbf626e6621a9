"""Read the images of a snapshot from the artifacts: bytes, resized pixels, or shards of JPEGs."""

import fcntl
import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.cores import count_cores
from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.geometry import Geometry
from jobs.progress import SILENT, Progress
from jobs.retrain.snapshot.image_shards import encode, write_shards
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri, example_location
from jobs.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

BATCH_SIZE = 512
"""Images that are encoded before they are written to a shard."""


@dataclass(frozen=True)
class SnapshotImages:
    """Reads images by content hash."""

    store: ObjectStore
    artifacts: S3Uri
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
        """Decode and resize a few images like the ingest flow: uint8 [n, 3, crop_to, crop_to], in the order of rows.

        Channels are last in memory. All calls share the threads that decode.

        Raises:
            PermanentError: as `decode`.
        """
        pixels = list(_open_pool().map(lambda row: self._resize(row, geometry), rows))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)

    def store_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry, folder: Path) -> None:
        """Decode and resize images like `load_pixels`, and store them as JPEGs in a folder, unless it exists.

        If another process is writing the folder, wait for it.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _hold_lock(folder.with_suffix(".lock")):
            if folder.exists():
                return
            with open_scratch(folder.parent) as scratch:
                self._write_shards(rows, geometry, scratch / folder.name)
                (scratch / folder.name).rename(folder)

    def _write_shards(self, rows: Sequence[SnapshotRow], geometry: Geometry, folder: Path) -> None:
        log.info("encoding %d images of %d pixels", len(rows), geometry.crop_to)
        # Batches bound the memory: a pool computes ahead of a slow consumer without limit.
        batches = (
            list(_open_pool().map(lambda row: encode(self._resize(row, geometry)), rows[start : start + BATCH_SIZE]))
            for start in range(0, len(rows), BATCH_SIZE)
        )
        write_shards(folder, self.progress.track("decoding images", batches, len(rows), size=BATCH_SIZE))

    def _resize(self, row: SnapshotRow, geometry: Geometry) -> np.ndarray:
        """Return uint8 pixels [crop_to, crop_to, 3]."""
        image = self.decode(row.content_hash, 2 * geometry.resize_to)
        return geometry.resize(Image.fromarray(image.pixels))


@cache
def _open_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2 * count_cores(), "decode")


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes. The operating system releases it when the process ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
