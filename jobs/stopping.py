"""Stop jobs. On the first SIGTERM a job finishes the current step; a second signal ends it immediately."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import TerminatedError

_stop_requested = threading.Event()


@contextmanager
def end_at_second_signal() -> Iterator[None]:
    """Exit on the second signal, even while the main thread is blocked in C code."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_count_signals, args=(receiver,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(sender)


def _count_signals(receiver: int) -> None:
    count = 0
    while numbers := os.read(receiver, 16):
        for number in numbers:
            count += number in {signal.SIGTERM, signal.SIGINT}
            if count > 1:
                os.write(2, b"error: ended immediately by a second signal; finished work is saved\n")
                os._exit(128 + number)
    os.close(receiver)


@contextmanager
def finish_steps() -> Iterator[None]:
    """Make SIGTERM only request a stop inside the block, so no step is interrupted. Blocks may be nested.

    Raises:
        TerminatedError: SIGTERM arrived. Raised at the end of the outermost block.
    """
    if signal.getsignal(signal.SIGTERM) is _request_stop:
        yield
        return
    _stop_requested.clear()
    previous = signal.signal(signal.SIGTERM, _request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        was_requested = _stop_requested.is_set()
        # Otherwise what follows in this process would stop too.
        _stop_requested.clear()
    if was_requested:
        raise TerminatedError("stopped after a step; finished work is saved. Run the same command again to resume")


def is_stop_requested() -> bool:
    """Return whether SIGTERM arrived since `finish_steps` began."""
    return _stop_requested.is_set()


def _request_stop(*_: object) -> None:
    _stop_requested.set()
