"""Decode photos in parallel processes, and replace the ones that die or hang."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Self

from jobs.errors import RetryableError
from jobs.tagging.decode import DecodeFault
from jobs.tagging.decode_process import Decoded, DecodeProcess, Decoder, End
from jobs.tagging.failures import Reason

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
