"""Compute how all points of a t-SNE layout repel each other, in time proportional to their number.

This is the method of Linderman et al. (2019), FIt-SNE: spread the points over a grid, convolve the grid with the kernel
by a Fourier transform, and read the result at each point.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

Grid = NDArray[np.float32]
NODES_PER_CELL = 3
MIN_CELLS, MAX_CELLS = 16, 300
"""A cell is at most 1 wide, the width of the kernel, except in a layout wider than the maximum."""


def compute_repulsion(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normalized repulsive force on each point, [n, 2]."""
    low = positions.min(axis=0)
    width = max(float((positions.max(axis=0) - low).max()), 1e-12)
    cells = int(np.clip(np.ceil(width), MIN_CELLS, MAX_CELLS))
    nodes = cells * NODES_PER_CELL
    spacing = width / nodes
    indices, weights = _interpolate((positions - low) / spacing, cells)
    kernel, squared = _transform_kernels(nodes, spacing)
    size = (next_fast_len(2 * nodes, real=True),) * 2

    def spread(charges: NDArray[np.float64] | float) -> Grid:
        grid = np.bincount(indices.ravel(), (weights * charges).ravel(), nodes * nodes)
        return rfft2(grid.reshape(nodes, nodes).astype(np.float32), size, workers=-1)  # type: ignore[no-any-return]

    def gather(transformed: Grid) -> NDArray[np.float64]:
        field = irfft2(transformed, size, workers=-1)[:nodes, :nodes].ravel()
        return (field[indices] * weights).sum(axis=0)  # type: ignore[no-any-return]

    ones = spread(1.0)
    total = max(float(gather(ones * kernel).sum()) - len(positions), 1e-12)
    near = gather(ones * squared)
    pulled = [gather(spread(positions[:, axis]) * squared) for axis in (0, 1)]
    return (positions * near[:, None] - np.stack(pulled, axis=1)) / total


def _interpolate(places: NDArray[np.float64], cells: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nine nodes around each point and its share of each, both [9, n]. Places are in units of nodes."""
    cell = np.minimum((places / NODES_PER_CELL).astype(np.intp), cells - 1)
    first = cell * NODES_PER_CELL
    a, b, c = (places - first - offset for offset in (0.5, 1.5, 2.5))
    share = np.stack([b * c / 2, -a * c, a * b / 2])
    offsets = np.arange(NODES_PER_CELL)[:, None]
    indices = (first[:, 0] + offsets)[:, None] * (cells * NODES_PER_CELL) + (first[:, 1] + offsets)[None]
    weights = share[:, None, :, 0] * share[None, :, :, 1]
    return indices.reshape(9, -1), weights.reshape(9, -1)


def _transform_kernels(nodes: int, spacing: float) -> tuple[Grid, Grid]:
    """Return the transforms of 1 / (1 + d²) and of its square, for all distances d between nodes."""
    distance = _list_distances(nodes) * spacing
    kernel = 1 / (1 + distance[:, None] ** 2 + distance[None, :] ** 2)
    return rfft2(kernel, workers=-1), rfft2(kernel * kernel, workers=-1)


@cache
def _list_distances(nodes: int) -> Grid:
    size = next_fast_len(2 * nodes, real=True)
    forward = np.arange(size, dtype=np.float32)
    distances: Grid = np.minimum(forward, size - forward)
    return distances
