"""Find the true neighbors of all queries in one pass over the vectors of a space."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.database.recall_checks import CatalogImages


@dataclass(frozen=True)
class Queries:
    """Queries that search in the same category, or without one.

    ``category`` is an index into the list of categories, None for no category. ``vectors`` [n, dimensions] have any
    length. ``own`` [n] are the images that the queries start from, which are not results; 0 for a text.
    """

    category: int | None
    vectors: NDArray[np.float32]
    own: NDArray[np.int64]


def find_best_similarities(
    queries: Sequence[Queries],
    images: CatalogImages,
    batches: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    k: int,
) -> list[NDArray[np.float32]]:
    """Return the cosines of the ``k`` nearest images of each query, [n, k] in any order, -inf where there are fewer.

    Memory: a batch in single precision, and its similarities to one group of queries.
    """
    wanted = [normalize(one.vectors) for one in queries]
    best = [np.full((len(one.vectors), k), -np.inf, np.float32) for one in queries]
    for batch_ids, batch_vectors in batches:
        is_known, category = images.find(batch_ids)
        ids, vectors, category = batch_ids[is_known], normalize(batch_vectors[is_known]), category[is_known]
        for number, one in enumerate(queries):
            chosen = slice(None) if one.category is None else category == one.category
            similarities = wanted[number] @ vectors[chosen].T
            similarities[one.own[:, None] == ids[chosen]] = -np.inf
            both = np.concatenate([best[number], similarities], axis=1)
            best[number] = np.partition(both, -k, axis=1)[:, -k:]
    return best


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors [n, dimensions] to unit length."""
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
