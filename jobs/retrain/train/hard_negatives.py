"""Mine hard negatives: order the images so that each batch of an encoder contains images that are easily confused.

A batch consists of a few clusters. A cluster is an image with its nearest neighbors of other products. The next
cluster starts with an image of a category that is often confused with that of the previous cluster.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

NEIGHBORS = 32
"""Neighbors kept per image: more than a cluster needs, because earlier clusters may already contain some."""
CLUSTER_SIZE = 8
MAX_CHUNK_SIZE = 2048
MAX_SIMILARITIES = 2**26
"""Similarities that are computed at once: 256 MB."""


@dataclass(frozen=True)
class Item:
    """An image to mine. Images of the same product or with the same text are not negatives of each other."""

    group_name: str
    category: str
    text: str


class HardNegativeOrder(torch.utils.data.Sampler[int]):
    """Visit every image once per epoch, with neighbors next to each other. The order depends only on seed and epoch.

    ``vectors`` are the base's unit vectors [n, dimensions] of the images.
    """

    def __init__(self, items: Sequence[Item], vectors: np.ndarray, batch_size: int, seed: int) -> None:
        self._categories = [item.category for item in items]
        self._neighbors = find_hard_negatives(items, vectors)
        self._confusions = _count_confusions(self._categories, self._neighbors)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._categories)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        return iter(self._arrange(random))

    def _arrange(self, random: np.random.Generator) -> list[int]:
        pool = _Pool(random.permutation(len(self)), self._categories)
        order: list[int] = []
        category: str | None = None
        while pool:
            # A batch starts with a random category. Each later cluster uses one that is confused with the previous one.
            if len(order) % self._batch_size == 0:
                category = None
            anchor = pool.take_first(self._choose_confused(category, random))
            category = self._categories[anchor]
            room = min(CLUSTER_SIZE, self._batch_size - len(order) % self._batch_size) - 1
            order += [anchor, *pool.take(self._neighbors[anchor], room)]
        return order

    def _choose_confused(self, category: str | None, random: np.random.Generator) -> str | None:
        confused = self._confusions.get(category) if category is not None else None
        if not confused:
            return None
        counts = np.array(list(confused.values()), dtype=float)
        return list(confused)[random.choice(len(counts), p=counts / counts.sum())]


class _Pool:
    """The images of an epoch that are not in a batch yet, in order."""

    def __init__(self, order: np.ndarray, categories: Sequence[str]) -> None:
        self._free: dict[int, None] = dict.fromkeys(order.tolist())
        self._by_category: dict[str, dict[int, None]] = defaultdict(dict)
        self._categories = categories
        for index in self._free:
            self._by_category[categories[index]][index] = None

    def __len__(self) -> int:
        return len(self._free)

    def take_first(self, category: str | None) -> int:
        """Remove and return the first image of this category, or the first of all if none is left."""
        candidates = self._by_category[category] if category is not None else None
        index: int = next(iter(candidates or self._free))
        self._remove(index)
        return index

    def take(self, indices: np.ndarray, count: int) -> list[int]:
        """Remove and return the first ``count`` of these images that are still in the pool, or fewer."""
        taken = [index for index in indices.tolist() if index in self._free][:count]
        for index in taken:
            self._remove(index)
        return taken

    def _remove(self, index: int) -> None:
        del self._free[index]
        del self._by_category[self._categories[index]][index]


def find_hard_negatives(items: Sequence[Item], vectors: np.ndarray) -> list[np.ndarray]:
    """Return each image's nearest neighbors, nearest first, except images of its product or with the same text."""
    groups, texts = _number([item.group_name for item in items]), _number([item.text for item in items])
    every = torch.from_numpy(vectors)
    neighbors: list[np.ndarray] = []
    chunk_size = min(MAX_CHUNK_SIZE, max(1, MAX_SIMILARITIES // max(1, len(items))))
    for start in range(0, len(items), chunk_size):
        chunk = slice(start, start + chunk_size)
        similarities = every[chunk] @ every.T
        similarities[(groups[chunk, None] == groups) | (texts[chunk, None] == texts)] = -torch.inf
        nearest = similarities.topk(min(NEIGHBORS, len(items)), dim=1)
        neighbors += [
            row[values > -torch.inf].numpy() for row, values in zip(nearest.indices, nearest.values, strict=True)
        ]
    return neighbors


def _number(names: Sequence[str]) -> torch.Tensor:
    """Number the names. Equal names get the same number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def _count_confusions(categories: Sequence[str], neighbors: Sequence[np.ndarray]) -> dict[str, dict[str, int]]:
    """Count how often images of one category have near neighbors in another."""
    confusions: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for category, indices in zip(categories, neighbors, strict=True):
        for other in (categories[index] for index in indices[:CLUSTER_SIZE].tolist()):
            if other != category:
                confusions[category][other] += 1
    return {category: dict(others) for category, others in confusions.items()}
