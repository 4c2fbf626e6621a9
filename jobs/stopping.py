"""Stop a job: the first SIGTERM lets it finish the current step, a second signal ends it immediately."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import TerminatedError

_is_asked = threading.Event()


@contextmanager
def end_at_second_signal() -> Iterator[None]:
    """Exit on the second signal, even while the main thread is blocked in C code."""
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(ear,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(mouth)


def _hear(ear: int) -> None:
    heard = 0
    while numbers := os.read(ear, 16):
        for number in numbers:
            heard += number in {signal.SIGTERM, signal.SIGINT}
            if heard > 1:
                os.write(2, b"error: ended at once by a second signal; what was finished is saved\n")
                os._exit(128 + number)
    os.close(ear)


@contextmanager
def finish_steps() -> Iterator[None]:
    """Let SIGTERM only ask, until the end of the block: nothing that is under way is cut off.

    Blocks may lie in each other. At the end of the outermost nothing is forgotten that came late.

    Raises:
        TerminatedError: SIGTERM came, and the block got to its end nevertheless.
    """
    if signal.getsignal(signal.SIGTERM) is _ask:
        yield
        return
    _is_asked.clear()
    previous = signal.signal(signal.SIGTERM, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
    if _is_asked.is_set():
        raise TerminatedError("stopped after a step; what was finished is saved, run it again to go on")


def is_asked_to_stop() -> bool:
    """Whether SIGTERM came since `finish_steps` began."""
    return _is_asked.is_set()


def _ask(*_: object) -> None:
    _is_asked.set()
