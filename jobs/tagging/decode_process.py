"""Run a decoder in a child process with a CPU time limit and a stall timeout."""

import enum
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeVar

import psutil

from jobs.child_process import end_with_parent
from jobs.errors import RetryableError
from jobs.tagging.decode import DecodeFault

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
