"""Decoding in processes of its own: parallel, and a decoder that crashes takes no job with it."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, Self, TypeVar

from jobs.child_process import end_with_parent
from jobs.tagging.decode import DecodeFault
from jobs.tagging.failures import Reason

Decoded = TypeVar("Decoded")


class DecodePool(Generic[Decoded]):
    """Decodes batches in order; a context manager that ends its processes.

    ``decoder`` is sent to the processes with each image: a function of a module, or a partial one.

    When a process dies, the images that were in flight are decoded again one at a time, each in a fresh
    process: the one that kills its process a second time is the culprit.
    """

    def __init__(self, processes: int, decoder: Callable[[bytes], Decoded | DecodeFault]) -> None:
        self._processes = processes
        self._decoder = decoder
        self._lock = threading.Lock()
        self._pool = self._start(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def decode(self, contents: Sequence[bytes]) -> list[Decoded | DecodeFault]:
        """Decode a batch; may be called from several threads."""
        pool = self._pool
        futures = [self._submit(pool, content) for content in contents]
        return [self._settle(pool, future, content) for future, content in zip(futures, contents, strict=True)]

    def _submit(self, pool: ProcessPoolExecutor, content: bytes) -> Future[Decoded | DecodeFault] | None:
        try:
            return pool.submit(self._decoder, content)
        except BrokenProcessPool:
            return None

    def _settle(
        self, pool: ProcessPoolExecutor, future: Future[Decoded | DecodeFault] | None, content: bytes
    ) -> Decoded | DecodeFault:
        if future is not None:
            try:
                return future.result()
            except BrokenProcessPool:
                pass
        self._replace(pool)
        return self._decode_alone(content)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is broken:
                broken.shutdown(wait=False)
                self._pool = self._start(self._processes)

    def _decode_alone(self, content: bytes) -> Decoded | DecodeFault:
        with self._start(processes=1) as quarantine:
            try:
                return quarantine.submit(self._decoder, content).result()
            except BrokenProcessPool:
                return DecodeFault(Reason.DECODER_CRASHED, "the decoder's process died on these bytes", 0.0)

    @staticmethod
    def _start(processes: int) -> ProcessPoolExecutor:
        # Not fork: the job has threads by then, and perhaps CUDA.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_decoder)


def _prepare_decoder() -> None:
    # A scheduler signals the whole process group: the job finishes its chunk, and needs its decoders for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
