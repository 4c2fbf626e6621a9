"""Test which queries share a forward pass, with models that only record their batches."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from jobs.errors import RetryableError
from jobs.serve.served_models import BatchRunner


class RecordingModel:
    """A model that adds its name to each query. Its passes block while ``gate`` is cleared."""

    def __init__(self, name: str, passes: int = 1, batch_size: int = 4) -> None:
        self.name = name
        self.batches: list[list[int]] = []
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.runner = BatchRunner(self.predict, passes, batch_size, self.sizes.append)

    def predict(self, queries: Sequence[int]) -> list[str]:
        self.batches.append(list(queries))
        assert self.gate.wait(30)
        if -1 in queries:
            raise RetryableError("out of memory")
        return [f"{self.name}{query}" for query in queries]


async def start(model: RecordingModel, *queries: int, passes: int = 1) -> "list[asyncio.Task[str]]":
    """Start queries, and wait until the model has started this many passes."""
    tasks = [asyncio.create_task(model.runner.run(query)) for query in queries]
    await asyncio.sleep(0)
    deadline = time.monotonic() + 30
    while len(model.batches) < passes:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return tasks


def test_queries_that_wait_share_a_pass_up_to_its_size() -> None:
    async def run() -> None:
        model = RecordingModel("a")
        model.gate.clear()
        tasks = [*await start(model, 0), *await start(model, 1, 2, 3, 4, 5, 6)]
        model.gate.set()
        assert await asyncio.gather(*tasks) == [f"a{number}" for number in range(7)]
        assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert model.sizes == [1, 4, 2]
        model.runner.close()

    asyncio.run(run())


def test_free_passes_start_at_once_and_never_more_than_the_model_has() -> None:
    async def run() -> None:
        model = RecordingModel("a", passes=2)
        model.gate.clear()
        tasks = [*await start(model, 0), *await start(model, 1, passes=2), *await start(model, 2, 3, passes=2)]
        # A third pass would have started by then.
        await asyncio.sleep(0.2)
        assert model.batches == [[0], [1]]
        model.gate.set()
        await asyncio.gather(*tasks)
        assert sorted(query for batch in model.batches for query in batch) == [0, 1, 2, 3]
        model.runner.close()

    asyncio.run(run())


def test_a_batch_never_mixes_models_and_order_is_kept() -> None:
    async def run() -> None:
        old, new = RecordingModel("old"), RecordingModel("new")
        old.gate.clear()
        new.gate.clear()
        tasks = [*await start(old, 0), *await start(old, 1, 2), *await start(new, 3), *await start(new, 4, 5)]
        old.gate.set()
        new.gate.set()
        assert await asyncio.gather(*tasks) == ["old0", "old1", "old2", "new3", "new4", "new5"]
        assert (old.batches, new.batches) == ([[0], [1, 2]], [[3], [4, 5]])

    asyncio.run(run())


def test_an_error_reaches_its_own_batch_only() -> None:
    async def run() -> None:
        model = RecordingModel("a", batch_size=2)
        model.gate.clear()
        tasks = [*await start(model, 0), *await start(model, 1, -1, 2, 3)]
        model.gate.set()
        await asyncio.wait(tasks)
        assert [task.exception() is not None for task in tasks] == [False, True, True, False, False]
        with pytest.raises(RetryableError, match="out of memory"):
            tasks[1].result()
        model.runner.close()

    asyncio.run(run())


def test_a_cancelled_query_is_not_computed() -> None:
    async def run() -> None:
        model = RecordingModel("a", batch_size=1)
        model.gate.clear()
        tasks = [*await start(model, 0), *await start(model, 1, 2)]
        tasks[1].cancel()
        with suppress(asyncio.CancelledError):
            await tasks[1]
        model.gate.set()
        assert [await tasks[0], await tasks[2]] == ["a0", "a2"]
        assert model.batches == [[0], [2]]
        model.runner.close()

    asyncio.run(run())


def test_a_replaced_model_is_freed_with_its_last_result() -> None:
    def watch(model: RecordingModel) -> Callable[[], object]:
        return weakref.ref(model.runner)

    async def run() -> None:
        model = RecordingModel("a")
        threads, runner = model.runner._threads._threads, watch(model)
        assert await model.runner.run(1) == "a1"
        del model
        gc.collect()
        assert runner() is None
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    asyncio.run(run())
