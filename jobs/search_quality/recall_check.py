"""Check how many of the true nearest images searches find, on sampled queries."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from jobs.database.recall_checks import (
    LARGE_CATEGORY,
    CatalogImages,
    RecallCheck,
    count_batches,
    insert_checks,
    list_large_categories,
    read_batches,
    read_catalog_images,
    read_text_vectors,
    read_vectors_of,
    search_images,
)
from jobs.database.spaces import EmbeddingSpace, find_live_space, read_space
from jobs.progress import Progress, open_progress, show_progress
from jobs.search_quality.exact_search import Queries, find_best_similarities

log = logging.getLogger(__name__)

K = 10
QUERIES = 200
"""Queries without a category, and in each large category. At the bound, the interval is then 0.01 to 0.02 wide to each
side."""
TOLERANCE = 1e-5
"""A result counts if it is as similar as a true neighbor, up to the rounding of sums: identical images are equal."""
Z = 1.96
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True)
class RecallReport:
    """The checks of the live space, first the one without a category. Empty without vectors."""

    checks: tuple[RecallCheck, ...]
    seconds: float

    @property
    def below(self) -> tuple[RecallCheck, ...]:
        """The checks that are below the bound, beyond the error of the sample."""
        return tuple(check for check in self.checks if check.is_below)


def check_recall(
    engine: Engine,
    bound: float,
    run_id: str | None = None,
    seed: int | None = None,
    large_category: int = LARGE_CATEGORY,
) -> RecallReport:
    """Search with sampled queries, compare the results with exact ones, and store recall and latency.

    ``seed`` makes the sample repeatable. By default, each check draws another one.
    """
    started = time.monotonic()
    with open_progress(engine, run_id, "check_recall") if run_id else show_progress("check_recall") as progress:
        # One snapshot, so both kinds of search see the same images.
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            checks = _check(connection, bound, np.random.default_rng(seed), large_category, progress)
        if checks:
            with engine.begin() as connection:
                insert_checks(connection, checks)
    report = RecallReport(tuple(checks), round(time.monotonic() - started, 1))
    for check in checks:
        log.info("recall: %s, p95 %.1f ms", check.sentence, check.p95_milliseconds)
    return report


def _check(
    connection: Connection, bound: float, random: np.random.Generator, large_category: int, progress: Progress
) -> list[RecallCheck]:
    progress.report("sampling queries")
    space_id = find_live_space(connection)
    if space_id is None:
        return []
    space = read_space(connection, space_id)
    names = list_large_categories(connection, space_id, large_category)
    images = read_catalog_images(connection, names)
    queries = _sample(connection, space, images, len(names), random)
    if not queries[0].own.any():
        return []
    # First, because the exact search replaces what is in the cache.
    found: list[list[_SearchResult]] = [[] for _ in queries]
    calls = [(group, place) for group, one in enumerate(queries) for place in range(len(one.own))]
    for group, place in progress.track("searching", calls, len(calls), unit="queries"):
        one = queries[group]
        name = None if one.category is None else names[one.category]
        found[group].append(_search(connection, space_id, one.vectors[place], name, int(one.own[place])))
    number = count_batches(connection, space)
    batches = progress.track("comparing all vectors", read_batches(connection, space, number), number, unit="batches")
    best = find_best_similarities(queries, images, batches, K)
    return [
        _summarize(space_id, None if one.category is None else names[one.category], found[group], best[group], bound)
        for group, one in enumerate(queries)
    ]


@dataclass(frozen=True)
class _SearchResult:
    """The similarities of the results of one search, and how long it took."""

    similarities: tuple[float, ...]
    milliseconds: float


def _search(
    connection: Connection, space_id: int, vector: NDArray[np.float32], category: str | None, own: int
) -> _SearchResult:
    started = time.perf_counter()
    results = dict(search_images(connection, space_id, vector, K, category, own or None))
    return _SearchResult(tuple(results.values()), 1000 * (time.perf_counter() - started))


def _sample(
    connection: Connection, space: EmbeddingSpace, images: CatalogImages, categories: int, random: np.random.Generator
) -> list[Queries]:
    """Draw queries without a category: the latest texts, at most half, and images. Then those of each category.

    Half of the queries in a category are its own images. The others are queries without a category, because most
    people who choose a category start from somewhere else, and such searches are harder.
    """
    texts = read_text_vectors(connection, space, QUERIES // 2)
    own, vectors = _draw(connection, space, images.image_ids, QUERIES - len(texts), random)
    all_vectors = np.concatenate([texts, vectors])
    all_own = np.concatenate([np.zeros(len(texts), np.int64), own])
    groups = [Queries(None, all_vectors, all_own)]
    for number in range(categories):
        of_category = images.image_ids[images.category == number]
        own, vectors = _draw(connection, space, of_category, QUERIES // 2, random)
        others = random.permutation(len(all_own))[: QUERIES // 2]
        groups.append(
            Queries(number, np.concatenate([vectors, all_vectors[others]]), np.concatenate([own, all_own[others]]))
        )
    return groups


def _draw(
    connection: Connection, space: EmbeddingSpace, image_ids: NDArray[np.int64], count: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw images that have a vector. Twice as many are tried, because some failed or are not embedded yet."""
    tried = random.choice(image_ids, min(2 * count, len(image_ids)), replace=False)
    ids, vectors = read_vectors_of(connection, space, tried)
    chosen = random.permutation(len(ids))[:count]
    return ids[chosen], vectors[chosen]


def _summarize(
    space_id: int, category: str | None, found: Sequence[_SearchResult], best: NDArray[np.float32], bound: float
) -> RecallCheck:
    shares = np.array([measure_recall(one.similarities, true) for one, true in zip(found, best, strict=True)])
    low, high = compute_interval(shares, K)
    p50, p95 = np.percentile([one.milliseconds for one in found], [50, 95])
    recall = float(shares.mean())
    return RecallCheck(
        space_id, category, len(shares), recall, low, high, bound, round(float(p50), 2), round(float(p95), 2)
    )


def measure_recall(found: Sequence[float], true: NDArray[np.float32]) -> float:
    """Return the share of true neighbors that were found, given the similarities of results and true neighbors."""
    known = true[np.isfinite(true)]
    if not len(known):
        return 1.0
    bound = float(known.min()) - TOLERANCE
    hits = sum(similarity >= bound for similarity in found)
    return min(hits / len(known), 1.0)


def compute_interval(shares: NDArray[np.float64], k: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of the mean of shares, each of ``k`` neighbors of one query.

    The neighbors of one query are not independent. As Korn and Graubard (1998) do for samples in clusters, the number
    of neighbors is therefore replaced by the one that independent neighbors would need for the variance of the mean.
    """
    queries, mean = len(shares), float(shares.mean())
    size = float(queries)
    if 0 < mean < 1 and queries > 1:
        variance = float(shares.var(ddof=1)) / queries
        size = min(mean * (1 - mean) / variance, queries * k) if variance else queries * k
    center = (mean + Z**2 / (2 * size)) / (1 + Z**2 / size)
    margin = Z * math.sqrt(mean * (1 - mean) / size + (Z / (2 * size)) ** 2) / (1 + Z**2 / size)
    return min(max(center - margin, 0.0), mean), max(min(center + margin, 1.0), mean)
