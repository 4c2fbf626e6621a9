"""Questions that arrive within milliseconds of each other are answered by one pass of a model."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

WAIT_SECONDS = 0.003
"""For which a question waits for others before it is answered alone."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Question_contra = TypeVar("Question_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class BatchModel(Protocol[Question_contra, Answer_co]):
    """A model as a batcher asks it; `answer` is called from up to ``passes`` threads at a time."""

    @property
    def batch_size(self) -> int:
        """Questions that are asked at once, at most."""

    @property
    def passes(self) -> int:
        """Batches that are asked side by side, at most."""

    def answer(self, questions: Sequence[Question_contra]) -> Sequence[Answer_co]:
        """Answer a batch, in its order."""


@dataclass(frozen=True)
class _Asked(Generic[Question, Answer]):
    model: BatchModel[Question, Answer]
    question: Question
    answer: "asyncio.Future[Answer]"


class MicroBatcher(Generic[Question, Answer]):
    """Batches of one kind of work; its methods belong to the thread of the event loop.

    Each question names the model that has to answer it, and batches never mix models. So a question that was asked
    before a switch is answered by the model of before, whose memory is free once the last of them is answered.
    """

    def __init__(self, name: str, observe_batch: Callable[[int], object]) -> None:
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._running = 0
        self._observe_batch = observe_batch
        self._threads = ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0))), name)

    async def ask(self, model: BatchModel[Question, Answer], question: Question) -> Answer:
        """The answer; a caller that is cancelled takes its question back.

        Raises what the model raises for the batch.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Asked(model, question, answer))
        if len(self._waiting) >= model.batch_size:
            self._start_batches()
        else:
            loop.call_later(WAIT_SECONDS, self._start_batches)
        return await answer

    def close(self) -> None:
        """End the threads once they are through; nobody may ask any more."""
        self._threads.shutdown()

    def _start_batches(self) -> None:
        while self._waiting and self._running < self._waiting[0].model.passes:
            batch = self._take_batch()
            if not batch:
                continue
            self._running += 1
            self._observe_batch(len(batch))
            questions = [asked.question for asked in batch]
            work = asyncio.get_running_loop().run_in_executor(self._threads, batch[0].model.answer, questions)
            work.add_done_callback(partial(self._hand_out, batch))

    def _take_batch(self) -> list[_Asked[Question, Answer]]:
        """The next questions of one model, without those that were taken back: a fair share for each free pass."""
        batch: list[_Asked[Question, Answer]] = []
        model = self._waiting[0].model
        share = -(-len(self._waiting) // (model.passes - self._running))
        while self._waiting and self._waiting[0].model is model and len(batch) < min(share, model.batch_size):
            asked = self._waiting.popleft()
            if not asked.answer.done():
                batch.append(asked)
        return batch

    def _hand_out(self, batch: Sequence[_Asked[Question, Answer]], work: "asyncio.Future[Sequence[Answer]]") -> None:
        self._running -= 1
        fault = work.exception()
        for place, asked in enumerate(batch):
            if asked.answer.done():
                continue
            if fault is not None:
                asked.answer.set_exception(fault)
            else:
                asked.answer.set_result(work.result()[place])
        self._start_batches()
