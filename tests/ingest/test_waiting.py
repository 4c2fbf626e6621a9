import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.ingest.pipeline import RESOURCES, Resource, Waiting, map_ahead, run_in

SLOW, FAST = 0.05, 0.001
ITEMS = 12


@pytest.mark.parametrize("slowest", ["bucket", "decode", "forward", "database"])
def test_the_slowest_of_overlapping_stages_is_waited_for(slowest: Resource) -> None:
    waiting = Waiting()

    def make_stage(seconds: float) -> Callable[[int], int]:
        def work(item: int) -> int:
            time.sleep(seconds)
            return item

        return work

    with ThreadPoolExecutor(len(RESOURCES)) as pool:
        items: Iterator[int] = iter(range(ITEMS))
        for resource in RESOURCES:
            stage = run_in(pool, make_stage(SLOW if resource == slowest else FAST))
            items = map_ahead(stage, items, 2, waiting.result_from(resource))
        assert list(items) == list(range(ITEMS))
    taken = waiting.take()
    assert max(taken, key=taken.__getitem__) == slowest
    assert taken[slowest] > 0.5 * ITEMS * SLOW / len(RESOURCES)


def test_what_was_taken_is_not_counted_again() -> None:
    waiting = Waiting()
    with waiting.measure("database"):
        time.sleep(0.02)
    assert waiting.take()["database"] >= 0.02
    assert waiting.take() == dict.fromkeys(RESOURCES, 0.0)


def test_a_wait_that_ends_in_a_fault_counts() -> None:
    waiting = Waiting()

    def fail() -> None:
        time.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor(1) as pool:
        waiting.result_from("decode")(pool.submit(fail))
    assert waiting.take()["decode"] > 0.01
