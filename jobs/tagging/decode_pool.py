"""Decoding in processes of its own: parallel, and a decoder that crashes takes no job with it."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self, TypeVar

from jobs.child_process import end_with_parent
from jobs.tagging.decode import DecodeFault
from jobs.tagging.failures import Reason

Decoded = TypeVar("Decoded")
Decoder = Callable[[bytes], Decoded | DecodeFault]

GROUP_SIZE = 8
"""Images that go to a process and come back together; one by one, sending them costs a fifth of the decoding."""


class DecodePool:
    """Decodes batches in order; a context manager that ends its processes.

    The processes start at once, so that they are ready when the models are. When one dies, the images that were in
    flight are decoded again one at a time, each in a fresh process: the one that kills its process a second time is
    the culprit.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._pool = _start(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def decode(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFault]:
        """Decode a batch; may be called from several threads.

        ``decoder`` is sent to the processes: a function of a module, or a partial one.
        """
        size = min(GROUP_SIZE, -(-len(contents) // self._processes)) or 1
        groups = [contents[start : start + size] for start in range(0, len(contents), size)]
        pool = self._pool
        futures = [_submit(pool, decoder, group) for group in groups]
        settled = [self._settle(pool, future, decoder, group) for future, group in zip(futures, groups, strict=True)]
        return [decoded for group in settled for decoded in group]

    def _settle(
        self,
        pool: ProcessPoolExecutor,
        future: Future[list[Decoded | DecodeFault]] | None,
        decoder: Decoder[Decoded],
        group: Sequence[bytes],
    ) -> list[Decoded | DecodeFault]:
        if future is not None:
            try:
                return future.result()
            except BrokenProcessPool:
                pass
        self._replace(pool)
        return [_decode_alone(decoder, content) for content in group]

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is broken:
                broken.shutdown(wait=False)
                self._pool = _start(self._processes)


def _start(processes: int) -> ProcessPoolExecutor:
    # Not fork: the job has threads by then, and perhaps CUDA.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_decoder)
    for _ in range(processes):
        pool.submit(_be_ready)
    return pool


def _prepare_decoder() -> None:
    # A scheduler signals the whole process group: the job finishes its chunk, and needs its decoders for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _be_ready() -> None:
    """Nothing: an executor starts a process for each piece of work that finds none idle."""


def _submit(
    pool: ProcessPoolExecutor, decoder: Decoder[Decoded], group: Sequence[bytes]
) -> Future[list[Decoded | DecodeFault]] | None:
    try:
        return pool.submit(_decode_group, decoder, group)
    except BrokenProcessPool:
        return None


def _decode_group(decoder: Decoder[Decoded], group: Sequence[bytes]) -> list[Decoded | DecodeFault]:
    return [decoder(content) for content in group]


def _decode_alone(decoder: Decoder[Decoded], content: bytes) -> Decoded | DecodeFault:
    with _start(processes=1) as quarantine:
        try:
            return quarantine.submit(decoder, content).result()
        except BrokenProcessPool:
            return DecodeFault(Reason.DECODER_CRASHED, "the decoder's process died on these bytes", 0.0)
