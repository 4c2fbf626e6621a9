"""The check measures what searches find, and stores it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from fixtures.catalog_rows import delete_images, open_live_space
from jobs.database import recall_checks
from jobs.database.migrations import SQL_FOLDER
from jobs.database.recall_checks import LARGE_CATEGORY, RecallCheck, insert_checks, list_checks
from jobs.search_quality import recall_check
from jobs.search_quality.recall_check import QUERIES, check_recall, compute_interval, measure_recall
from tests.search_quality.conftest import IndexedCatalog

BROKEN_SEARCH = """
    CREATE OR REPLACE FUNCTION catalog.images_by_index(
        query_vector halfvec, space_id integer, k bigint, excluded_image_id bigint
    ) RETURNS TABLE (image_id bigint, similarity real) LANGUAGE sql STABLE AS $$
        SELECT e.image_id, (1 - (e.embedding <=> query_vector))::real FROM catalog.image_embeddings e
        WHERE e.space_id = images_by_index.space_id AND e.image_id IS DISTINCT FROM excluded_image_id
            AND e.image_id % 5 <> 0
        ORDER BY e.embedding <=> query_vector LIMIT k
    $$
"""
CHECK = RecallCheck(1, None, 200, 0.9, 0.88, 0.92, 0.95, 5.0, 9.0)


def test_searches_find_nearly_all_neighbors(catalog: IndexedCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_check, "QUERIES", 40)
    # Many batches, and images that are in the space but not in the results.
    monkeypatch.setattr(recall_checks, "BATCH_PAGES", 2)
    with catalog.engine.begin() as connection:
        delete_images(connection, catalog.image_ids[:150].tolist())
    report = check_recall(catalog.engine, 0.95, seed=1, large_category=400)
    assert [(check.category, check.queries) for check in report.checks] == [
        (None, 40),
        ("dress", 40),
        ("hat", 40),
    ]
    assert all(check.recall > 0.95 and check.high >= check.recall >= check.low for check in report.checks)
    assert report.below == ()
    with catalog.engine.connect() as connection:
        assert tuple(one.check for one in list_checks(connection, 5)) == report.checks


def test_a_search_that_misses_a_fifth_is_below_the_bound(
    catalog: IndexedCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_check, "QUERIES", 80)
    catalog.run(BROKEN_SEARCH)
    report = check_recall(catalog.engine, 0.95)
    assert [check.category for check in report.below] == [None]
    assert report.below[0].low < 0.8 < report.below[0].high


def test_a_catalog_without_vectors_is_not_checked(engine: Engine) -> None:
    assert check_recall(engine, 0.95).checks == ()
    with engine.begin() as connection:
        open_live_space(connection, 4)
    assert check_recall(engine, 0.95).checks == ()


def test_a_catalog_whose_images_are_all_gone_is_not_checked(catalog: IndexedCatalog) -> None:
    with catalog.engine.begin() as connection:
        delete_images(connection, catalog.image_ids.tolist())
    assert check_recall(catalog.engine, 0.95).checks == ()


def test_only_the_live_space_is_listed(catalog: IndexedCatalog) -> None:
    with catalog.engine.begin() as connection:
        insert_checks(connection, [CHECK])
        assert [one.check for one in list_checks(connection, 1)] == [CHECK]
        insert_checks(connection, [replace(CHECK, space_id=open_live_space(connection, 4))])
        assert [one.check.space_id for one in list_checks(connection, 9)] == [2]


def test_identical_images_count_as_each_other() -> None:
    true = np.array([0.9, 0.8, 0.8, 0.8], np.float32)
    assert measure_recall([0.9, 0.8, 0.8, 0.8], true) == 1
    assert measure_recall([0.9, 0.8, 0.79, 0.7], true) == 0.5
    assert measure_recall([0.9, 0.8], true) == 0.5
    assert measure_recall([0.9], np.array([0.9, -np.inf], np.float32)) == 1


def test_the_interval_is_the_one_of_wilson_for_independent_neighbors() -> None:
    # Queries with one neighbor are a plain proportion: 90 of 100, 95 % interval as in the textbooks.
    one_each = np.repeat([1.0, 0.0], [90, 10])
    assert compute_interval(one_each, 1) == pytest.approx((0.8256, 0.9448), abs=1e-3)
    # All neighbors of a query share its fate, so ten of each tell no more than one.
    assert compute_interval(one_each, 10) == pytest.approx(compute_interval(one_each, 1), abs=1e-3)
    spread = np.tile([0.9, 1.0, 0.8], 60)
    low, high = compute_interval(spread, 10)
    assert high - low < 0.09
    assert compute_interval(np.ones(200), 10) == pytest.approx((0.981, 1), abs=1e-3)
    assert compute_interval(np.array([0.5]), 10)[0] < 0.5


@pytest.mark.parametrize("true_recall", [0.95, 0.985])
def test_nineteen_of_twenty_intervals_contain_the_true_recall(true_recall: float) -> None:
    """Queries differ: the harder ones miss several neighbors at once."""
    random = np.random.default_rng(3)
    spread = 8.0
    hits = 0
    for _ in range(1000):
        by_query = random.beta(true_recall * spread, (1 - true_recall) * spread, size=QUERIES)
        low, high = compute_interval(random.binomial(10, by_query) / 10, 10)
        hits += low <= true_recall <= high
    assert 0.92 < hits / 1000 < 0.98


def test_large_categories_are_those_that_the_search_treats_as_large() -> None:
    source = (SQL_FOLDER / "functions" / "rank_images.sql").read_text(encoding="utf-8")
    assert re.findall(r"few constant \w+ := (\d+);", source) == [str(LARGE_CATEGORY)]
