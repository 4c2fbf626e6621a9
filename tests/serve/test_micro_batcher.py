"""Which questions share a pass, on models that only note what they are asked."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

import pytest

from jobs.errors import RetryableError
from jobs.serve.micro_batcher import MicroBatcher


class NotingModel:
    """Answers a question with its own name; passes wait until they are let through."""

    def __init__(self, name: str, passes: int = 1, batch_size: int = 4) -> None:
        self.name = name
        self.passes = passes
        self.batch_size = batch_size
        self.batches: list[list[int]] = []
        self.let_through = threading.Event()
        self.let_through.set()

    def answer(self, questions: Sequence[int]) -> list[str]:
        assert self.let_through.wait(30)
        self.batches.append(list(questions))
        if -1 in questions:
            raise RetryableError("out of memory")
        return [f"{self.name}{question}" for question in questions]


class Desk:
    """A batcher, and the sizes of the batches that it has told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.batcher = MicroBatcher[int, str]("test", self.sizes.append)

    async def ask_all(self, *asked: tuple[NotingModel, int]) -> list[str]:
        return list(await asyncio.gather(*(self.batcher.ask(model, question) for model, question in asked)))


def test_questions_that_come_together_share_a_pass_up_to_its_size() -> None:
    async def ask() -> None:
        desk, model = Desk(), NotingModel("a")
        assert await desk.ask_all(*((model, number) for number in range(6))) == [f"a{number}" for number in range(6)]
        assert model.batches == [[0, 1, 2, 3], [4, 5]]
        assert desk.sizes == [4, 2]
        desk.batcher.close()

    asyncio.run(ask())


def test_free_passes_share_what_waits() -> None:
    async def ask() -> None:
        desk, model = Desk(), NotingModel("a", passes=2)
        await desk.ask_all(*((model, number) for number in range(3)))
        assert sorted(model.batches) == [[0, 1], [2]]
        desk.batcher.close()

    asyncio.run(ask())


def test_a_batch_never_mixes_models_and_order_is_kept() -> None:
    async def ask() -> None:
        desk, old, new = Desk(), NotingModel("old"), NotingModel("new")
        answers = await desk.ask_all((old, 1), (old, 2), (new, 3), (new, 4))
        assert answers == ["old1", "old2", "new3", "new4"]
        assert (old.batches, new.batches) == ([[1, 2]], [[3, 4]])
        desk.batcher.close()

    asyncio.run(ask())


def test_a_fault_reaches_those_of_its_batch_alone() -> None:
    async def ask() -> None:
        desk, model = Desk(), NotingModel("a", batch_size=2)
        asked = [asyncio.create_task(desk.batcher.ask(model, question)) for question in (1, -1, 2, 3)]
        await asyncio.wait(asked)
        assert [task.exception() is not None for task in asked] == [True, True, False, False]
        with pytest.raises(RetryableError, match="out of memory"):
            asked[0].result()
        desk.batcher.close()

    asyncio.run(ask())


def test_who_is_cancelled_takes_the_question_back() -> None:
    async def ask() -> None:
        desk, model = Desk(), NotingModel("a", batch_size=1)
        model.let_through.clear()
        asked = [asyncio.create_task(desk.batcher.ask(model, number)) for number in range(3)]
        await asyncio.sleep(0)
        asked[1].cancel()
        with suppress(asyncio.CancelledError):
            await asked[1]
        model.let_through.set()
        assert [await asked[0], await asked[2]] == ["a0", "a2"]
        assert model.batches == [[0], [2]]
        desk.batcher.close()

    asyncio.run(ask())
