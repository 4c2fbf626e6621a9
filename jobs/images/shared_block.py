"""Pass the pixels of prepared images between two processes through shared memory instead of a pipe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np

from jobs.images.decode import PreparedImage

SHARED_BYTES = 4_000_000
"""Enough for nine images of 384 x 384, or 26 of 224 x 224. Pixels that do not fit go through the pipe."""


@dataclass(frozen=True)
class _Place:
    """Where uint8 pixels of this shape start in the block."""

    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SharedBlock:
    """Memory that a process shares with one that it starts. It holds the pixels of one group of images at a time."""

    memory: Any = field(default_factory=lambda: RawArray("B", SHARED_BYTES))

    def store(self, results: Sequence[Any]) -> list[Any]:
        """Move the pixels of prepared images into the block. Other results stay as they are."""
        block, end = self._view(), 0

        def place(pixels: np.ndarray) -> np.ndarray | _Place:
            nonlocal end
            start = end
            if start + pixels.nbytes > block.nbytes:
                return pixels
            end += pixels.nbytes
            block[start:end] = pixels.reshape(-1)
            return _Place(start, pixels.shape)

        return [_map_inputs(result, place) for result in results]

    def load(self, results: Sequence[Any]) -> list[Any]:
        """Return the results of `store` with a copy of their pixels."""
        block = self._view()

        def copy(pixels: np.ndarray | _Place) -> np.ndarray:
            if isinstance(pixels, np.ndarray):
                return pixels
            return block[pixels.start : pixels.start + math.prod(pixels.shape)].reshape(pixels.shape).copy()

        return [_map_inputs(result, copy) for result in results]

    def _view(self) -> np.ndarray:
        return np.frombuffer(self.memory, dtype=np.uint8)


def _map_inputs(result: Any, work: Any) -> Any:
    return replace(result, inputs=tuple(map(work, result.inputs))) if isinstance(result, PreparedImage) else result
