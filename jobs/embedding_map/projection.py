"""Project vectors to two dimensions with t-SNE, so neighbors stay neighbors (docs/decisions/embedding-map.md).

The result depends only on the input: there is no random number in it. A layout can start from the positions of an
earlier one, which keeps most points in place.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.neighbors import NearestNeighbors

from jobs.embedding_map.repulsion import compute_repulsion

Positions = NDArray[np.float64]
"""Points in the plane, [n, 2]."""

COMPONENTS = 50
"""Neighbors are searched among this many principal components, which is ten times faster than among all numbers."""
NEIGHBORS = 15
EARLY_STEPS, LATE_STEPS = 200, 400
"""Steps with exaggerated attraction, in which clusters find their places, and steps without."""
EXAGGERATION = 12.0
INITIAL_SPREAD = 1e-4
MIN_RATE = 50.0
MAX_MOVE = 5.0


def reduce_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first principal components of vectors [n, dimensions]."""
    centered = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, : -COMPONENTS - 1 : -1]
    # An axis may point either way. Fixed, so small changes of the vectors do not turn the map over.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    reduced: NDArray[np.float32] = centered @ axes
    return reduced


def project(
    reduced: NDArray[np.float32],
    start: Positions | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Positions:
    """Lay reduced vectors [n, components] out. ``start`` are earlier positions, from which no cluster moves far.

    ``report`` is called with the number of finished steps and of all steps.
    """
    affinities = _compute_affinities(reduced)
    positions = _start_from(reduced) if start is None else start.copy()
    move, gains = np.zeros_like(positions), np.ones_like(positions)
    early = EARLY_STEPS if start is None else 0
    steps = early + LATE_STEPS
    for step in range(steps):
        exaggeration, momentum = (EXAGGERATION, 0.5) if step < early else (1.0, 0.8)
        gradient = exaggeration * _compute_attraction(affinities, positions) - compute_repulsion(positions)
        # Each coordinate speeds up while its direction stays the same.
        gains = np.where(np.sign(gradient) == np.sign(move), gains * 0.8, gains + 0.2).clip(0.01)
        rate = 4 * max(len(positions) / exaggeration, MIN_RATE)
        move = momentum * move - rate * gains * gradient
        move *= np.minimum(1, MAX_MOVE / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), MAX_MOVE))
        positions += move
        positions -= positions.mean(axis=0)
        report(step + 1, steps)
    return positions


def place_near_neighbors(reduced: NDArray[np.float32], positions: Positions, is_placed: NDArray[np.bool_]) -> Positions:
    """Return the positions with those of unplaced points set to the median of their nearest placed neighbors."""
    neighbors = _find_neighbors(reduced[is_placed], reduced[~is_placed], 5)
    placed = positions.copy()
    placed[~is_placed] = np.median(positions[is_placed][neighbors], axis=1)
    return placed


def _start_from(reduced: NDArray[np.float32]) -> Positions:
    """Return the first two principal components, as small as t-SNE needs them to untangle clusters."""
    start = np.zeros((len(reduced), 2))
    width = min(2, reduced.shape[1])
    start[:, :width] = reduced[:, :width]
    return start * INITIAL_SPREAD / max(float(start[:, 0].std()), 1e-12)


def _compute_affinities(reduced: NDArray[np.float32]) -> csr_array:
    """Connect each point equally to its nearest neighbors, in both directions. All weights add up to 1."""
    n, k = len(reduced), min(NEIGHBORS, len(reduced) - 1)
    if k == 0:
        return csr_array((n, n))
    neighbors = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reduced).kneighbors(return_distance=False)
    directed = csr_array((np.ones(n * k), neighbors.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return csr_array(directed + directed.T) / (2 * n * k)


def _find_neighbors(known: NDArray[np.float32], wanted: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    index = NearestNeighbors(n_neighbors=min(k, len(known)), algorithm="brute").fit(known)
    neighbors: NDArray[np.intp] = index.kneighbors(wanted, return_distance=False)
    return neighbors


def _compute_attraction(affinities: csr_array, positions: Positions) -> Positions:
    """Return how strongly the neighbors of each point pull at it."""
    rows = np.repeat(np.arange(len(positions)), np.diff(affinities.indptr))
    difference = positions[rows] - positions[affinities.indices]
    weights = affinities.data / (1 + np.einsum("ij,ij->i", difference, difference))
    pulls = csr_array((weights, affinities.indices, affinities.indptr), shape=affinities.shape)
    attraction: Positions = pulls.sum(axis=1)[:, None] * positions - pulls @ positions
    return attraction
