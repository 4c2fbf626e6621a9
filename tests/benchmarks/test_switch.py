"""What the benchmark of the switch calls right, and that nobody who asks notices a switch."""

import numpy as np
import pytest
from sqlalchemy import Engine

from benchmarks.search.load_catalog import load_catalog, load_second_space
from benchmarks.search.made_up_vectors import make_catalog
from benchmarks.search.switch import Asked, Judged, Plan, Question, Switched, judge, measure_switches, summarise

OLD, NEW = 1, 2


def test_no_question_notices_a_switch(engine: Engine) -> None:
    catalogs = [make_catalog(6000, seed) for seed in (0, 1)]
    load_catalog(engine, catalogs[0])
    load_second_space(engine, catalogs[1].vectors)
    report = measure_switches(engine, catalogs, Plan(questions=30, clients=3, switches=4, pause_seconds=0.1))
    assert (report.failures, report.short, report.mixed, report.stale) == (0, 0, 0, 0), report
    assert all(phase.questions for phase in report.phases if phase.name != "between"), report


@pytest.mark.parametrize(
    ("judged", "mixed", "stale"),
    [
        (Judged(0.1, 0.2, 10, OLD), 0, 0),
        (Judged(0.1, 0.2, 10, NEW), 0, 1),
        (Judged(0.9, 1.1, 10, OLD), 0, 0),
        (Judged(0.9, 1.1, 10, NEW), 0, 0),
        (Judged(0.9, 2.1, 10, OLD), 0, 0),
        (Judged(2.1, 2.2, 10, OLD), 0, 1),
        (Judged(2.1, 2.2, 10, NEW), 0, 0),
        (Judged(2.1, 2.2, 10, None), 1, 0),
    ],
)
def test_an_answer_is_of_the_space_that_was_live(judged: Judged, mixed: int, stale: int) -> None:
    report = summarise(1, 1, OLD, [Switched(1, 2, NEW)], [judged])
    assert (report.mixed, report.stale, report.failures) == (mixed, stale, 0)


def test_a_failure_is_no_answer() -> None:
    report = summarise(1, 1, OLD, [Switched(1, 2, NEW)], [Judged(0, 0.5, 10, None, "away")])
    assert (report.questions, report.failures, report.mixed, report.failure_examples) == (1, 1, 0, ("away",))


def test_similarities_tell_the_space_and_a_mixture() -> None:
    """A vector of one space compared with photos of another is what must never be answered."""
    spaces = {OLD: np.eye(4, dtype=np.float16), NEW: np.eye(4, dtype=np.float16)[::-1]}
    question = Question("", {}, {OLD: np.array([0.8, 0.6, 0, 0]), NEW: np.array([0, 0, 0.8, 0.6])})

    def find_space(*rows: tuple[int, float]) -> int | None:
        return judge(Asked(question, 0, 1, rows), spaces).space

    assert find_space((1, 0.8), (2, 0.6)) == OLD
    assert find_space((1, 0.6), (2, 0.8)) == NEW
    assert find_space((1, 0.8), (2, 0.8)) is None
    assert find_space((4, 0.8), (3, 0.6)) is None
    assert judge(Asked(question, 0, 1, failure="away"), spaces).space is None
