"""Decode photos in processes of their own: a photo that crashes or stalls its decoder costs that photo alone."""

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
from jobs.failures import Reason
from jobs.images.decode import DecodeFault


def end_with_parent() -> None:
    """Let this child process end with the job that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


Decoded = TypeVar("Decoded")
Decoder = Callable[[bytes], Decoded | DecodeFault]

CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}

NO_MEMORY_CODE = 12


class End(enum.Enum):
    """How a process ended that owed an answer."""

    NOT_STARTED = "did not start"
    CRASHED = "crashed"
    TOO_SLOW = "took too long for one photo"
    STALLED = "stood still"
    KILLED = "was killed"
    NO_MEMORY = "ran out of memory"


class DecodeProcess:
    """One process, asked by one thread at a time. No pipe and no lock is shared with another process.

    So whenever it dies, also in the middle of an answer, its own pipe ends and nobody else waits.
    ``photo_seconds`` is the processor time that one photo may take, and the time for which a process that owes an
    answer may go without any.
    """

    def __init__(self, photo_seconds: float) -> None:
        """Start it; raises RetryableError where the machine has no process left to give."""
        # Not fork: the job has threads by then, and perhaps CUDA.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, photo_seconds), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            raise RetryableError(f"no decoding process can be started: {error}") from None
        theirs.close()
        self._is_ready = False
        self._asked = _Watch(photo_seconds)

    def decode(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFault] | End:
        """Decode photos, or return how the process ended. Exceptions of the decoder are re-raised."""
        self._asked.begin()
        try:
            if not self._is_ready:
                self._is_ready = self._pipe.recv()
            self._pipe.send((decoder, contents))
            answer = self._pipe.recv()
        except (EOFError, OSError):
            return self._explain_end()
        finally:
            self._asked.end()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def kill_if_stalled(self) -> None:
        """Kill the process if it has work but used no CPU time for ``photo_seconds``."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return
        if self._asked.is_stalled(times.user + times.system):
            self._process.kill()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _explain_end(self) -> End:
        self._process.kill()
        self._process.join()
        if not self._is_ready:
            return End.NOT_STARTED
        if self._asked.has_stalled:
            return End.STALLED
        code = self._process.exitcode or 0
        if code == NO_MEMORY_CODE:
            return End.NO_MEMORY
        if code == -signal.SIGPROF:
            return End.TOO_SLOW
        return End.CRASHED if -code in CRASHES else End.KILLED


class _Watch:
    """Since when a process owes an answer without having used the processor."""

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


def _serve(pipe: Connection, photo_seconds: float) -> None:
    # A scheduler signals the whole process group: the job finishes its chunk, and needs its decoders for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    end_with_parent()
    # The pipe ends with the job, and in the middle of a message if that was killed.
    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            decoder, contents = pipe.recv()
            pipe.send(_answer(decoder, contents, photo_seconds))


def _answer(
    decoder: Decoder[Decoded], contents: Sequence[bytes], photo_seconds: float
) -> list[Decoded | DecodeFault] | Exception:
    try:
        return [_decode_in_time(decoder, content, photo_seconds) for content in contents]
    except MemoryError:
        # A fresh process tells whether it was this photo's doing.
        os._exit(NO_MEMORY_CODE)
    except Exception as error:  # noqa: BLE001 - It is the job's, which raises it.
        return error


def _decode_in_time(decoder: Decoder[Decoded], content: bytes, seconds: float) -> Decoded | DecodeFault:
    """Decode one photo; past its processor time the kernel ends this process, also in the middle of C code."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return decoder(content)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


log = logging.getLogger(__name__)

GROUP_SIZE = 8
"""Images that go to a process and come back together; one by one, sending them costs a fifth of the decoding."""
PHOTO_SECONDS = 20.0
"""CPU time limit: six times what a PNG of 100 million pixels took on an EPYC (3.3 s)."""
MAX_CONSECUTIVE_LOSSES = 8
"""After so many processes were lost without a decoded photo in between, the machine is at fault."""
MACHINE_FAULTS = {End.NOT_STARTED, End.STALLED, End.KILLED, End.NO_MEMORY}
"""Attributed to the photo only if they repeat when a process decodes it alone."""
FAULT_OF_END = {
    End.CRASHED: (Reason.DECODER_CRASHED, "the decoder's process died on these bytes"),
    End.TOO_SLOW: (Reason.DECODER_TOO_SLOW, "the decoder takes too long for these bytes"),
    End.STALLED: (Reason.DECODER_TOO_SLOW, "the decoder stood still on these bytes, twice"),
    End.KILLED: (Reason.DECODER_LOST, "the decoder's process was killed, twice"),
    End.NO_MEMORY: (Reason.DECODER_LOST, "the decoder ran out of memory, twice"),
}


class DecodePool:
    """Decodes batches in order; a context manager that ends its processes.

    The processes start at once, so that they are ready when the models are. When one ends without an answer, its
    photos are decoded again one at a time: a photo fails only if that repeats when a process works on it alone.
    """

    def __init__(self, processes: int, photo_seconds: float = PHOTO_SECONDS) -> None:
        """Start processes, each of which gives one photo so much processor time, or so long without any."""
        self._start = partial(DecodeProcess, photo_seconds)
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
        # Before the threads are joined: what waits for an answer sees the end of its pipe. A thread may have replaced
        # a process meanwhile.
        self._end_processes()
        self._threads.shutdown(cancel_futures=True)
        self._end_processes()

    def _end_processes(self) -> None:
        for process in self._processes:
            process.end()

    def decode(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFault]:
        """Decode a batch; may be called from several threads.

        ``decoder`` is sent to the processes: a function of a module, or a partial one.

        Raises:
            RetryableError: processes are lost one after the other, whatever they decode.
        """
        size = min(GROUP_SIZE, -(-len(contents) // len(self._processes))) or 1
        groups = [contents[start : start + size] for start in range(0, len(contents), size)]
        answers = self._threads.map(partial(self._decode_group, decoder), groups)
        return [decoded for group in answers for decoded in group]

    def _decode_group(self, decoder: Decoder[Decoded], group: Sequence[bytes]) -> list[Decoded | DecodeFault]:
        answer = self._ask(decoder, group)
        return [self._decode_alone(decoder, content) for content in group] if isinstance(answer, End) else answer

    def _decode_alone(self, decoder: Decoder[Decoded], content: bytes) -> Decoded | DecodeFault:
        for is_last in (False, True):
            answer = self._ask(decoder, [content])
            if not isinstance(answer, End):
                return answer[0]
            if is_last or answer in {End.CRASHED, End.TOO_SLOW}:
                return DecodeFault(*FAULT_OF_END[answer], seconds=0.0)
        raise AssertionError("the last try returns")

    def _ask(self, decoder: Decoder[Decoded], contents: Sequence[bytes]) -> list[Decoded | DecodeFault] | End:
        """Ask an idle process, which is replaced if it ends."""
        number = self._idle.get()
        try:
            while not self._is_closed.is_set():
                answer = self._processes[number].decode(decoder, contents)
                if not isinstance(answer, End):
                    self._losses = 0
                    return answer
                log.warning("a decoding process %s", answer.value)
                self._processes[number] = self._start()
                if answer in MACHINE_FAULTS:
                    self._count_loss(answer)
                if answer is not End.NOT_STARTED:
                    return answer
        finally:
            self._idle.put(number)
        raise RetryableError("decoding was stopped")

    def _count_loss(self, end: End) -> None:
        self._losses += 1
        if self._losses >= MAX_CONSECUTIVE_LOSSES:
            raise RetryableError(
                f"{self._losses} decoding processes in a row were lost, and the last {end.value}: check the "
                "memory of this machine, or reduce CATALOG_DECODE_PROCESSES"
            )

    def _watch(self) -> None:
        while not self._is_closed.wait(1.0):
            for process in self._processes:
                process.kill_if_stalled()
