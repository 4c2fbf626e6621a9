"""The exact search agrees with a comparison of every pair."""

import numpy as np

from fixtures.catalog_rows import unit_vectors
from jobs.database.recall_checks import CatalogImages
from jobs.search_quality.exact_search import Queries, find_best_similarities


def test_it_finds_the_nearest_of_each_category_in_batches() -> None:
    vectors = unit_vectors(60, 8, clusters=5, seed=1).astype(np.float32)
    ids = np.arange(1, 61)
    category = np.where(ids % 3 == 0, 0, -1).astype(np.int32)
    category[ids == 60] = 1
    is_known = ids != 7
    images = CatalogImages(ids[is_known], category[is_known])
    queries = [
        Queries(None, 2 * vectors[:4], np.array([1, 2, 3, 0])),
        Queries(0, vectors[2:4], np.array([3, 4])),
        Queries(1, vectors[:1], np.array([1])),
    ]
    batches = [(ids[start : start + 7], vectors[start : start + 7]) for start in range(0, 60, 7)]
    found = find_best_similarities(queries, images, batches, 5)
    for one, best in zip(queries, found, strict=True):
        for query, own, of_query in zip(one.vectors, one.own, best, strict=True):
            allowed = is_known & (ids != own) & ((category == one.category) | (one.category is None))
            similarities = vectors[allowed] @ query / np.linalg.norm(query)
            expected = np.sort(similarities / np.linalg.norm(vectors[allowed], axis=1))[::-1][:5]
            finite = np.sort(of_query[np.isfinite(of_query)])[::-1]
            np.testing.assert_allclose(finite, expected, atol=1e-6)
    assert np.isfinite(found[2]).sum() == 1
