"""Batches of photos that are easily confused, so that an encoder has to look closely (hard-negative mining).

An order of photos whose consecutive batches are each made of a few clusters: a photo with its nearest neighbours of
other products, then a photo of the category with which that of the first is most often confused, and so on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

NEIGHBOURS = 32
"""How many of a photo's nearest neighbours are remembered: of these, some are taken already when its turn comes."""
CLUSTER_SIZE = 8
CHUNK_SIZE = 2048


@dataclass(frozen=True)
class Item:
    """What makes two photos no negatives of each other: the same product, or the same text."""

    group_name: str
    category: str
    text: str


class HardNegativeOrder(torch.utils.data.Sampler[int]):
    """Every photo once an epoch, neighbours together; the order depends on seed and epoch alone.

    ``vectors`` are the unit vectors [n, dimensions] that the base gives the photos.
    """

    def __init__(self, items: Sequence[Item], vectors: np.ndarray, batch_size: int, seed: int) -> None:
        self._categories = [item.category for item in items]
        self._neighbours = find_hard_negatives(items, vectors)
        self._confusions = _count_confusions(self._categories, self._neighbours)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._categories)

    def set_epoch(self, epoch: int) -> None:
        """Go on to another epoch, counted from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        return iter(self._arrange(random))

    def _arrange(self, random: np.random.Generator) -> list[int]:
        pool = _Pool(random.permutation(len(self)), self._categories)
        order: list[int] = []
        category: str | None = None
        while pool:
            # A new batch starts anywhere; within it, the next cluster is of a category that is confused with the last.
            if len(order) % self._batch_size == 0:
                category = None
            anchor = pool.take_first(self._choose_confused(category, random))
            category = self._categories[anchor]
            room = min(CLUSTER_SIZE, self._batch_size - len(order) % self._batch_size) - 1
            order += [anchor, *pool.take(self._neighbours[anchor], room)]
        return order

    def _choose_confused(self, category: str | None, random: np.random.Generator) -> str | None:
        confused = self._confusions.get(category) if category is not None else None
        if not confused:
            return None
        counts = np.array(list(confused.values()), dtype=float)
        return list(confused)[random.choice(len(counts), p=counts / counts.sum())]


class _Pool:
    """The photos that are not in a batch yet, in the order of an epoch."""

    def __init__(self, order: np.ndarray, categories: Sequence[str]) -> None:
        self._free: dict[int, None] = dict.fromkeys(order.tolist())
        self._by_category: dict[str, dict[int, None]] = defaultdict(dict)
        self._categories = categories
        for index in self._free:
            self._by_category[categories[index]][index] = None

    def __len__(self) -> int:
        return len(self._free)

    def take_first(self, category: str | None) -> int:
        """The first that is left, of this category if any is."""
        candidates = self._by_category[category] if category is not None else None
        index: int = next(iter(candidates or self._free))
        self._remove(index)
        return index

    def take(self, indices: np.ndarray, count: int) -> list[int]:
        """At most so many of these photos, the first that are left."""
        taken = [index for index in indices.tolist() if index in self._free][:count]
        for index in taken:
            self._remove(index)
        return taken

    def _remove(self, index: int) -> None:
        del self._free[index]
        del self._by_category[self._categories[index]][index]


def find_hard_negatives(items: Sequence[Item], vectors: np.ndarray) -> list[np.ndarray]:
    """For each photo the indices of its nearest others, nearest first, without those of its product or its text."""
    groups, texts = _number([item.group_name for item in items]), _number([item.text for item in items])
    every = torch.from_numpy(vectors)
    neighbours: list[np.ndarray] = []
    for start in range(0, len(items), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        similarities = every[chunk] @ every.T
        similarities[(groups[chunk, None] == groups) | (texts[chunk, None] == texts)] = -torch.inf
        nearest = similarities.topk(min(NEIGHBOURS, len(items)), dim=1)
        neighbours += [
            row[values > -torch.inf].numpy() for row, values in zip(nearest.indices, nearest.values, strict=True)
        ]
    return neighbours


def _number(names: Sequence[str]) -> torch.Tensor:
    """Equal numbers for equal names."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def _count_confusions(categories: Sequence[str], neighbours: Sequence[np.ndarray]) -> dict[str, dict[str, int]]:
    """How often a photo of one category has its nearest neighbours in another."""
    confusions: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for category, indices in zip(categories, neighbours, strict=True):
        for other in (categories[index] for index in indices[:CLUSTER_SIZE].tolist()):
            if other != category:
                confusions[category][other] += 1
    return {category: dict(others) for category, others in confusions.items()}
