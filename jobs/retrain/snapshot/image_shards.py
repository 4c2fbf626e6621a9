"""Store training images as JPEGs of training size in Arrow files, and decode any of them by position."""

import io
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

QUALITY = 92
"""JPEG quality. A million real images of 256 px take 20 GB: docs/decisions/training-images.md."""
SMALL_SIDE = 128
"""Below this side, the colors keep their full resolution: patterns may be only two pixels wide."""
COLUMN = "image"
SCHEMA = pa.schema([pa.field(COLUMN, pa.binary())])
SHARD_BYTES = 256 * 2**20
"""A file is closed once it has this size, so any file system and any copying tool can handle it."""


def encode(pixels: np.ndarray) -> bytes:
    """Encode uint8 pixels [height, width, 3]."""
    buffer = io.BytesIO()
    subsampling = "4:4:4" if len(pixels) < SMALL_SIDE else "4:2:0"
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=subsampling)
    return buffer.getvalue()


def write_shards(folder: Path, batches: Iterable[Sequence[bytes]]) -> None:
    """Write batches of JPEGs into Arrow IPC files in a new folder. Only one batch is in memory at a time."""
    folder.mkdir()
    remaining = iter(batches)
    for number, batch in enumerate(remaining):
        with pa.OSFile(str(folder / f"{number:05}.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            for jpegs in chain([batch], remaining):
                writer.write(pa.record_batch([pa.array(jpegs, pa.binary())], schema=SCHEMA))
                if file.tell() >= SHARD_BYTES:
                    break


class ImageShards:
    """The square images of a folder of Arrow files, by position. ``side`` is their length in pixels.

    Threads and forked processes can share an instance. It keeps only the place of each JPEG in memory, 16 bytes, and
    reads each with one call: in a memory-mapped file, all pages that were ever read would count as memory of the
    process.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.side = side
        self._paths = sorted(folder.glob("*.arrow"))
        places = [_find_images(path, number) for number, path in enumerate(self._paths)]
        self._places = np.concatenate(places) if places else np.empty(0, dtype=_PLACE)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, position: int) -> bytes:
        """Return the JPEG at a position."""
        file_number, length, offset = self._places[position].tolist()
        with self._paths[file_number].open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    def decode(self, positions: Sequence[int]) -> torch.Tensor:
        """Decode images to uint8 pixels [n, 3, side, side]."""
        pixels = np.empty((len(positions), 3, self.side, self.side), dtype=np.uint8)
        for image, position in zip(pixels, positions, strict=True):
            image[:] = np.asarray(Image.open(io.BytesIO(self.read(position)))).transpose(2, 0, 1)
        return torch.from_numpy(pixels)


_PLACE = np.dtype([("file", np.int32), ("length", np.int32), ("offset", np.int64)])


def _find_images(path: Path, number: int) -> np.ndarray:
    """Return the place of each JPEG in a file."""
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
        file.seek(0)
        chunks = pa.ipc.open_file(file).read_all().column(COLUMN).chunks
        return np.concatenate([_find_in_batch(chunk, whole.address, number) for chunk in chunks])


def _find_in_batch(images: Any, file_address: int, number: int) -> np.ndarray:
    _, ends, content = images.buffers()
    offsets = np.frombuffer(ends, np.int32)[: len(images) + 1]
    places = np.empty(len(images), dtype=_PLACE)
    places["file"] = number
    places["length"] = np.diff(offsets)
    places["offset"] = content.address - file_address + offsets[:-1]
    return places
