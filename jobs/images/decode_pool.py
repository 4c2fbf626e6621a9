"""Decode images in separate processes. An image that crashes or stalls its decoder then fails alone."""

import enum
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Self, TypeVar

import psutil

from jobs.errors import RetryableError
from jobs.failures import DecodeReason
from jobs.images.decode import DecodeFailure
from jobs.images.shared_block import SharedBlock

log = logging.getLogger(__name__)

Decoded = TypeVar("Decoded")
Decoder = Callable[[bytes], Decoded | DecodeFailure]

CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}

NO_MEMORY_CODE = 12
GROUP_SIZE = 16
"""Number of images sent to a process at once. Sending them one by one adds a fifth to the decoding time."""
IMAGE_SECONDS = 20.0
"""CPU time limit for one image: six times what a PNG of 100 million pixels took on an EPYC (3.3 s)."""
MAX_CONSECUTIVE_LOSSES = 8
"""If this many processes are lost in a row without decoding anything, the machine is the cause."""


def end_with_parent() -> None:
    """Make this child process exit when its parent exits, whatever the reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class ProcessEnd(enum.Enum):
    """How a process ended before it returned its result."""

    NOT_STARTED = "did not start"
    CRASHED = "crashed"
    TOO_SLOW = "took too long for one image"
    STALLED = "stalled"
    KILLED = "was killed"
    NO_MEMORY = "ran out of memory"


MACHINE_ENDS = {ProcessEnd.NOT_STARTED, ProcessEnd.STALLED, ProcessEnd.KILLED, ProcessEnd.NO_MEMORY}
"""Ends that the machine may have caused. They fail an image only if they repeat while a process decodes it alone."""
FAILURE_OF_END = {
    ProcessEnd.CRASHED: (DecodeReason.DECODER_CRASHED, "the decoder crashed on these bytes"),
    ProcessEnd.TOO_SLOW: (DecodeReason.DECODER_TOO_SLOW, "decoding takes too long"),
    ProcessEnd.STALLED: (DecodeReason.DECODER_TOO_SLOW, "the decoder stalled twice on these bytes"),
    ProcessEnd.KILLED: (DecodeReason.DECODER_LOST, "the decoding process was killed twice"),
    ProcessEnd.NO_MEMORY: (DecodeReason.DECODER_LOST, "the decoder ran out of memory twice"),
}


class DecodeProcess:
    """Control one decoding process, from one thread at a time.

    The process shares no pipe, no memory and no lock with other processes. If it dies, even while sending a result,
    only its own pipe closes. Pixels come back through shared memory. ``image_seconds`` limits the CPU time for one
    image, and how long the process may use no CPU while it has work.
    """

    def __init__(self, image_seconds: float) -> None:
        """Start the process. Raise RetryableError if the machine cannot start it."""
        # Spawn, not fork: the job has threads and possibly CUDA.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._block = SharedBlock()
        self._process = context.Process(target=_serve, args=(theirs, self._block, image_seconds), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            raise RetryableError(f"cannot start a decoding process: {error}") from None
        theirs.close()
        self._is_ready = False
        self._stall = _StallDetector(image_seconds)

    def decode(
        self, decoder: Decoder[Decoded], contents: Sequence[bytes]
    ) -> list[Decoded | DecodeFailure] | ProcessEnd:
        """Decode images, or return how the process ended. Exceptions of the decoder are re-raised."""
        self._stall.begin()
        try:
            if not self._is_ready:
                self._is_ready = self._pipe.recv()
            self._pipe.send((decoder, len(contents)))
            for content in contents:
                # Without pickling, which would copy the bytes while all other threads wait.
                self._pipe.send_bytes(content)
            result = self._pipe.recv()
        except (EOFError, OSError):
            return self._explain_end()
        finally:
            self._stall.end()
        if isinstance(result, Exception):
            raise result
        return self._block.load(result)

    def kill_if_stalled(self) -> None:
        """Kill the process if it has work but has used no CPU time for ``image_seconds``."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return
        if self._stall.is_stalled(times.user + times.system):
            self._process.kill()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _explain_end(self) -> ProcessEnd:
        self._process.kill()
        self._process.join()
        if not self._is_ready:
            return ProcessEnd.NOT_STARTED
        if self._stall.has_stalled:
            return ProcessEnd.STALLED
        code = self._process.exitcode or 0
        if code == NO_MEMORY_CODE:
            return ProcessEnd.NO_MEMORY
        if code == -signal.SIGPROF:
            return ProcessEnd.TOO_SLOW
        return ProcessEnd.CRASHED if -code in CRASHES else ProcessEnd.KILLED


class _StallDetector:
    """Detect that a process has work but has not used the CPU for ``patience_seconds``."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._used: float | None = None
        self._since: float | None = None
        self.has_stalled = False

    def begin(self) -> None:
        with self._lock:
            self._since, self._used = time.monotonic(), None

    def end(self) -> None:
        with self._lock:
            self._since = None

    def is_stalled(self, used: float) -> bool:
        with self._lock:
            if self._since is None:
                return False
            if used != self._used:
                self._since, self._used = time.monotonic(), used
            self.has_stalled = time.monotonic() - self._since > self._patience_seconds
            return self.has_stalled


def _serve(pipe: Connection, block: SharedBlock, image_seconds: float) -> None:
    # Ignored because a scheduler signals the whole process group, and the job needs its decoders to finish the chunk.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    end_with_parent()
    # The pipe closes with the job, possibly in the middle of a message.
    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            decoder, count = pipe.recv()
            contents = [pipe.recv_bytes() for _ in range(count)]
            result = _decode_all(decoder, contents, image_seconds)
            pipe.send(result if isinstance(result, Exception) else block.store(result))


def _decode_all(
    decoder: Decoder[Decoded], contents: Sequence[bytes], image_seconds: float
) -> list[Decoded | DecodeFailure] | Exception:
    try:
        return [_decode_in_time(decoder, content, image_seconds) for content in contents]
    except MemoryError:
        # Exit. New processes then decode the images one at a time, which shows whether an image is the cause.
        os._exit(NO_MEMORY_CODE)
    except Exception as error:  # noqa: BLE001 - the job re-raises it
        return error


def _decode_in_time(decoder: Decoder[Decoded], content: bytes, seconds: float) -> Decoded | DecodeFailure:
    """Decode one image. The kernel kills this process after the CPU time limit, even inside C code."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return decoder(content)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class DecodePool:
    """Decode batches in several processes and return results in order. Exiting the context manager ends the processes.

    The processes start immediately, so they are ready when the models are. If a process ends early, its images are
    decoded again one at a time. An image fails only if its process ends early again.
    """

    def __init__(self, processes: int, image_seconds: float = IMAGE_SECONDS) -> None:
        """Start the processes. ``image_seconds`` limits each image as in `DecodeProcess`."""
        self._start = partial(DecodeProcess, image_seconds)
        self._processes = [self._start() for _ in range(processes)]
        self._idle: SimpleQueue[int] = SimpleQueue()
        for number in range(processes):
            self._idle.put(number)
        self._threads = ThreadPoolExecutor(processes, "decode")
        self._losses = 0
        self._is_closed = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="decode-watch", daemon=True)
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._watchdog.join()
        # Kill the processes before joining the threads, so a thread that waits for a result sees a closed pipe. Kill
        # them again afterwards, because a thread may have replaced a process.
        self._end_processes()
        self._threads.shutdown(cancel_futures=True)
        self._end_processes()

    def _end_processes(self) -> None:
        for process in self._processes:
            process.end()

    def decode(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFailure]:
        """Decode a batch. Safe to call from several threads.

        ``decoder`` is pickled, so it must be a top-level function or a partial of one.

        Raises:
            RetryableError: processes are lost one after another, whatever they decode.
        """
        size = min(GROUP_SIZE, -(-len(contents) // len(self._processes))) or 1
        groups = [contents[start : start + size] for start in range(0, len(contents), size)]
        results = self._threads.map(partial(self._decode_group, decoder), groups)
        return [decoded for group in results for decoded in group]

    def _decode_group(self, decoder: Decoder[Decoded], group: Sequence[bytes]) -> list[Decoded | DecodeFailure]:
        result = self._run(decoder, group)
        if isinstance(result, ProcessEnd):
            return [self._decode_alone(decoder, content) for content in group]
        return result

    def _decode_alone(self, decoder: Decoder[Decoded], content: bytes) -> Decoded | DecodeFailure:
        for is_last in (False, True):
            result = self._run(decoder, [content])
            if not isinstance(result, ProcessEnd):
                return result[0]
            if is_last or result in {ProcessEnd.CRASHED, ProcessEnd.TOO_SLOW}:
                return DecodeFailure(*FAILURE_OF_END[result], seconds=0.0)
        raise AssertionError("the last try returns")

    def _run(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFailure] | ProcessEnd:
        """Decode images in an idle process, and replace the process if it ends."""
        number = self._idle.get()
        try:
            while not self._is_closed.is_set():
                result = self._processes[number].decode(decoder, contents)
                if not isinstance(result, ProcessEnd):
                    self._losses = 0
                    return result
                log.warning("a decoding process %s", result.value)
                self._processes[number] = self._start()
                if result in MACHINE_ENDS:
                    self._count_loss(result)
                if result is not ProcessEnd.NOT_STARTED:
                    return result
        finally:
            self._idle.put(number)
        raise RetryableError("decoding was stopped")

    def _count_loss(self, end: ProcessEnd) -> None:
        self._losses += 1
        if self._losses >= MAX_CONSECUTIVE_LOSSES:
            raise RetryableError(
                f"{self._losses} decoding processes in a row were lost, and the last one {end.value}. Check the "
                "memory of this machine, or reduce CATALOG_DECODE_PROCESSES"
            )

    def _watch(self) -> None:
        while not self._is_closed.wait(1.0):
            for process in self._processes:
                process.kill_if_stalled()
