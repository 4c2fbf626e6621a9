import numpy as np
import pytest

from jobs.retrain.train import hard_negatives
from jobs.retrain.train.hard_negatives import CLUSTER_SIZE, HardNegativeOrder, Item, find_hard_negatives

BATCH_SIZE = 16


def make_items(products: int, images: int = 2) -> list[Item]:
    return [
        Item(f"product {number}", "hat" if number % 2 else "dress", f"text {number}")
        for number in range(products)
        for _ in range(images)
    ]


def make_vectors(items: list[Item], clusters: int, seed: int = 0) -> np.ndarray:
    """Make unit vectors around so many centers. Images of one product have the same center."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(clusters, 24))
    vectors = np.stack([centers[int(item.group_name.split()[1]) % clusters] for item in items])
    vectors = vectors + random.normal(size=vectors.shape) * 0.05
    unit: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def measure_similarity(order: list[int], vectors: np.ndarray) -> float:
    """Return the mean cosine of two images of one batch."""
    batches = [vectors[order[start : start + BATCH_SIZE]] for start in range(0, len(order), BATCH_SIZE)]
    return float(np.mean([(batch @ batch.T).mean() for batch in batches]))


def test_hard_negatives_are_the_nearest_of_other_products_and_texts() -> None:
    items = [
        Item("a", "hat", "red"),
        Item("a", "hat", "blue"),
        Item("b", "hat", "red"),
        Item("c", "hat", "green"),
        Item("d", "hat", "black"),
    ]
    angles = np.array([0.0, 0.1, 0.2, 0.3, 1.5])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    neighbors = find_hard_negatives(items, vectors)
    # The first shares its product with the second and its text with the third.
    assert neighbors[0].tolist() == [3, 4]
    assert neighbors[3].tolist() == [2, 1, 0, 4]


def test_chunks_do_not_change_the_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items(40)
    vectors = make_vectors(items, clusters=5)
    whole = find_hard_negatives(items, vectors)
    monkeypatch.setattr(hard_negatives, "MAX_SIMILARITIES", 7 * len(items))
    assert all(map(np.array_equal, find_hard_negatives(items, vectors), whole))


@pytest.mark.parametrize("products", [1, 3, 50, 123])
def test_every_image_occurs_once_per_epoch(products: int) -> None:
    items = make_items(products)
    order = HardNegativeOrder(items, make_vectors(items, clusters=5), BATCH_SIZE, seed=1)
    assert len(order) == len(items)
    assert sorted(order) == list(range(len(items)))


def test_images_of_a_batch_are_more_similar_than_by_chance() -> None:
    items = make_items(200)
    vectors = make_vectors(items, clusters=20)
    mined = measure_similarity(list(HardNegativeOrder(items, vectors, BATCH_SIZE, seed=1)), vectors)
    chance = measure_similarity(np.random.default_rng(0).permutation(len(items)).tolist(), vectors)
    assert mined > chance + 0.3


def test_clusters_of_a_batch_are_of_confused_categories() -> None:
    """Hats resemble caps, and dresses resemble skirts. Most batches hold exactly one of the two pairs."""
    names = ["hat", "cap", "dress", "skirt"]
    items = [Item(str(number), names[number % 4], str(number)) for number in range(320)]
    centers = np.eye(2, 8)[[0, 0, 1, 1]]
    vectors = np.stack([centers[number % 4] for number in range(320)])
    vectors = vectors + np.random.default_rng(0).normal(size=vectors.shape) * 0.1
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    order = list(HardNegativeOrder(items, vectors, BATCH_SIZE, seed=3))
    batches = [{items[index].category for index in order[start : start + BATCH_SIZE]} for start in range(0, 256, 16)]
    assert sum(batch in ({"hat", "cap"}, {"dress", "skirt"}) for batch in batches) >= 0.8 * len(batches)


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    items = make_items(60)
    vectors = make_vectors(items, clusters=6)
    one, other = (HardNegativeOrder(items, vectors, BATCH_SIZE, seed=1) for _ in range(2))
    first = list(one)
    assert list(one) == list(other) == first
    one.set_epoch(1)
    assert list(one) != first
    other.set_epoch(1)
    assert list(one) == list(other)
    assert list(HardNegativeOrder(items, vectors, BATCH_SIZE, seed=2)) != first


def test_a_cluster_is_smaller_than_a_batch() -> None:
    assert CLUSTER_SIZE <= BATCH_SIZE
