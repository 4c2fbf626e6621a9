"""What the benchmark of the switch calls right, and that nobody who asks notices a switch."""

import pytest
from sqlalchemy import Engine

from benchmarks.load_catalog import load_catalog, load_second_space
from benchmarks.made_up_vectors import make_catalog
from benchmarks.switch import Asked, Plan, Switched, measure_switches, summarise

OLD, NEW = 1, 2


def test_no_question_notices_a_switch(engine: Engine) -> None:
    catalogs = [make_catalog(3000, seed) for seed in (0, 1)]
    load_catalog(engine, catalogs[0])
    load_second_space(engine, catalogs[1].vectors)
    report = measure_switches(engine, catalogs, Plan(questions=30, clients=3, switches=4, pause_seconds=0.1))
    assert (report.failures, report.mixed, report.stale) == (0, 0, 0), report
    assert all(phase.questions for phase in report.phases if phase.name != "between"), report


@pytest.mark.parametrize(
    ("asked", "mixed", "stale"),
    [
        (Asked(0.1, 0.2, OLD), 0, 0),
        (Asked(0.1, 0.2, NEW), 0, 1),
        (Asked(0.9, 1.1, OLD), 0, 0),
        (Asked(0.9, 1.1, NEW), 0, 0),
        (Asked(0.9, 2.1, OLD), 0, 0),
        (Asked(2.1, 2.2, OLD), 0, 1),
        (Asked(2.1, 2.2, NEW), 0, 0),
        (Asked(2.1, 2.2, None), 1, 0),
    ],
)
def test_an_answer_is_of_the_space_that_was_live(asked: Asked, mixed: int, stale: int) -> None:
    report = summarise(1, 1, OLD, [Switched(1, 2, NEW)], [asked])
    assert (report.mixed, report.stale, report.failures) == (mixed, stale, 0)


def test_a_failure_is_no_answer() -> None:
    report = summarise(1, 1, OLD, [Switched(1, 2, NEW)], [Asked(0, 0.5, None, "away")])
    assert (report.questions, report.failures, report.mixed, report.failure_examples) == (1, 1, 0, ("away",))
