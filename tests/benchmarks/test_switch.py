"""Searches do not notice a switch, and the benchmark of the switch detects incorrect responses."""

import numpy as np
import pytest
from sqlalchemy import Engine

from benchmarks.search.generated_catalog import load_catalog, load_second_space, make_catalog
from benchmarks.search.switch import CheckedResponse, Plan, Query, Response, Switch, check, measure_switches, summarize

OLD, NEW = 1, 2


def test_no_search_notices_a_switch(engine: Engine) -> None:
    catalogs = [make_catalog(6000, seed) for seed in (0, 1)]
    load_catalog(engine, catalogs[0])
    load_second_space(engine, catalogs[1].vectors)
    report = measure_switches(engine, catalogs, Plan(queries=30, clients=3, switches=4, pause_seconds=0.1))
    assert (report.errors, report.short, report.mixed, report.stale) == (0, 0, 0, 0), report
    assert all(phase.milliseconds for phase in report.phases if phase.name != "between"), report


@pytest.mark.parametrize(
    ("response", "mixed", "stale"),
    [
        (CheckedResponse(0.1, 0.2, 10, OLD), 0, 0),
        (CheckedResponse(0.1, 0.2, 10, NEW), 0, 1),
        (CheckedResponse(0.9, 1.1, 10, OLD), 0, 0),
        (CheckedResponse(0.9, 1.1, 10, NEW), 0, 0),
        (CheckedResponse(0.9, 2.1, 10, OLD), 0, 0),
        (CheckedResponse(2.1, 2.2, 10, OLD), 0, 1),
        (CheckedResponse(2.1, 2.2, 10, NEW), 0, 0),
        (CheckedResponse(2.1, 2.2, 10, None), 1, 0),
    ],
)
def test_a_response_must_be_of_a_space_that_was_live(response: CheckedResponse, mixed: int, stale: int) -> None:
    report = summarize(1, OLD, [Switch(1, 2, NEW)], [response])
    assert (report.mixed, report.stale, report.errors) == (mixed, stale, 0)


def test_an_error_is_counted_apart() -> None:
    report = summarize(1, OLD, [Switch(1, 2, NEW)], [CheckedResponse(0, 0.5, 10, None, "away")])
    assert (report.requests, report.errors, report.mixed, report.error_examples) == (1, 1, 0, ("away",))


def test_similarities_identify_the_space_and_a_mixture() -> None:
    """A search must never compare a vector of one space with images of another."""
    spaces = {OLD: np.eye(4, dtype=np.float16), NEW: np.eye(4, dtype=np.float16)[::-1]}
    query = Query("", {}, {OLD: np.array([0.8, 0.6, 0, 0]), NEW: np.array([0, 0, 0.8, 0.6])})

    def find_space(*rows: tuple[int, float]) -> int | None:
        return check(Response(query, 0, 1, rows), spaces).space

    assert find_space((1, 0.8), (2, 0.6)) == OLD
    assert find_space((1, 0.6), (2, 0.8)) == NEW
    assert find_space((1, 0.8), (2, 0.8)) is None
    assert find_space((4, 0.8), (3, 0.6)) is None
    assert check(Response(query, 0, 1, error="away"), spaces).space is None
