"""Test how chunks are divided into batches, and how the time spent waiting for each stage is measured."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.database.tagging_work import DueImage
from jobs.ingest.pipeline import RESOURCES, Resource, StageTimer, cut_batches, map_ahead, run_in

SLOW, FAST = 0.05, 0.001
ITEMS = 12


def make_images(*sizes: int) -> list[DueImage]:
    return [
        DueImage(number, f"{number}.jpg", "etag", size, "new", needs_tag=True, needs_embedding=True)
        for number, size in enumerate(sizes)
    ]


def cut(*sizes: int) -> list[list[int]]:
    """Cut images of these sizes into batches of at most 3 images and 100 bytes. Return the sizes in each batch."""
    return [[image.size_bytes for image in batch] for batch in cut_batches(make_images(*sizes), 3, 100)]


def test_a_batch_has_at_most_max_images() -> None:
    assert cut(1, 2, 3, 4, 5, 6, 7) == [[1, 2, 3], [4, 5, 6], [7]]
    assert cut() == []


def test_a_batch_has_at_most_max_bytes() -> None:
    assert cut(60, 40, 1, 99, 2) == [[60, 40], [1, 99], [2]]


def test_a_larger_image_is_a_batch_of_its_own() -> None:
    assert cut(1, 500, 1, 1) == [[1], [500], [1, 1]]


@pytest.mark.parametrize("slowest", ["bucket", "decode", "forward", "database"])
def test_the_timer_names_the_slowest_of_overlapping_stages(slowest: Resource) -> None:
    timer = StageTimer()

    def make_stage(seconds: float) -> Callable[[int], int]:
        def work(item: int) -> int:
            time.sleep(seconds)
            return item

        return work

    with ThreadPoolExecutor(len(RESOURCES)) as pool:
        items: Iterator[int] = iter(range(ITEMS))
        for resource in RESOURCES:
            stage = run_in(pool, make_stage(SLOW if resource == slowest else FAST))
            items = map_ahead(stage, items, 2, timer.result_from(resource))
        assert list(items) == list(range(ITEMS))
    taken = timer.take()
    assert max(taken, key=taken.__getitem__) == slowest
    assert taken[slowest] > 0.5 * ITEMS * SLOW / len(RESOURCES)


def test_taking_the_seconds_resets_them() -> None:
    timer = StageTimer()
    with timer.measure("database"):
        time.sleep(0.02)
    assert timer.take()["database"] >= 0.02
    assert timer.take() == dict.fromkeys(RESOURCES, 0.0)


def test_a_wait_that_raises_is_counted() -> None:
    timer = StageTimer()

    def fail() -> None:
        time.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor(1) as pool:
        timer.result_from("decode")(pool.submit(fail))
    assert timer.take()["decode"] > 0.01
