import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from jobs.embedding_map.projection import place_near_neighbors, project, reduce_vectors
from jobs.embedding_map.repulsion import compute_repulsion


def make_clusters(size: int = 60) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return unit vectors in six clusters, and the cluster of each."""
    random = np.random.default_rng(3)
    clusters = np.arange(6 * size) % 6
    vectors = random.normal(size=(6, 64))[clusters] + 0.4 * random.normal(size=(6 * size, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), clusters


def find_neighbors(points: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    neighbors: NDArray[np.intp] = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    return neighbors


def test_neighbors_stay_neighbors() -> None:
    vectors, clusters = make_clusters()
    positions = project(reduce_vectors(vectors))
    assert (clusters[find_neighbors(positions, 10)] == clusters[:, None]).mean() > 0.99
    pairs = zip(find_neighbors(positions, 15), find_neighbors(vectors, 15), strict=True)
    assert np.mean([len(set(near) & set(true)) / 15 for near, true in pairs]) > 0.4


def test_the_result_depends_only_on_the_input() -> None:
    vectors, _ = make_clusters(20)
    reports: list[tuple[int, int]] = []
    first = project(reduce_vectors(vectors), report=lambda done, total: reports.append((done, total)))
    assert (first == project(reduce_vectors(vectors.copy()))).all()
    assert reports[-1] == (len(reports), len(reports))


def test_an_arrangement_starts_from_the_old_one() -> None:
    vectors, clusters = make_clusters()
    reduced = reduce_vectors(vectors)
    old = project(reduced)[:, ::-1] * [1, -1]
    new = project(reduced, old)
    moves = [np.linalg.norm(new[clusters == c].mean(axis=0) - old[clusters == c].mean(axis=0)) for c in range(6)]
    assert max(moves) < 0.25 * np.ptp(old, axis=0).max()


def test_new_points_are_placed_in_their_cluster_and_others_stay() -> None:
    vectors, clusters = make_clusters()
    reduced = reduce_vectors(vectors)
    positions = project(reduced)
    is_placed = np.arange(len(vectors)) % 7 > 0
    known = np.where(is_placed[:, None], positions, np.nan)
    placed = place_near_neighbors(reduced, known, is_placed)
    assert (placed[is_placed] == positions[is_placed]).all()
    assert (clusters[find_neighbors(placed, 5)] == clusters[:, None])[~is_placed].mean() > 0.95


def test_few_or_identical_vectors_have_positions() -> None:
    for vectors in (np.ones((1, 8)), np.eye(2, 8), np.ones((5, 8)), np.ones((40, 1))):
        positions = project(reduce_vectors(vectors.astype(np.float32)))
        assert positions.shape == (len(vectors), 2)
        assert np.isfinite(positions).all()


def test_repulsion_is_that_of_all_pairs() -> None:
    for spread in (0.5, 8.0, 30.0):
        positions = np.random.default_rng(1).normal(size=(300, 2)) * spread
        difference = positions[:, None] - positions[None]
        kernel = 1 / (1 + (difference**2).sum(axis=2))
        exact = (kernel[..., None] ** 2 * difference).sum(axis=1) / (kernel.sum() - len(positions))
        # A grid blurs the forces between points in the same cell.
        assert np.linalg.norm(compute_repulsion(positions) - exact) < 0.1 * np.linalg.norm(exact)
