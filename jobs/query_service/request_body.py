"""Read the bodies of requests within limits: one on each body, and one on all bodies in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from jobs.query_service.refusals import BodyTooLargeError, NotNowError
from jobs.storage.faults import ObjectFault

BODIES_BYTES = 100_000_000
"""Of all bodies that are in memory, read and not yet decoded; one body alone may be larger."""


@dataclass(eq=False)
class _Arriving:
    """A body that is still arriving. Rescheduling its timeout to now cancels it."""

    timeout: asyncio.Timeout
    size_bytes: int = 0


class BodyReader:
    """Counts the bytes that all requests hold; belongs to the thread of the event loop.

    When they reach the limit, the body that began first and is still arriving is given up: a client that sends
    slowly, or stops, keeps nobody out.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = max(limit_bytes, BODIES_BYTES)
        self._held_bytes = 0
        self._arriving: list[_Arriving] = []

    @asynccontextmanager
    async def read(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body, which counts until the end of the block.

        Raises:
            BodyTooLargeError: it has more bytes than ``limit_bytes``; the rest is not read.
            NotNowError: the memory for bodies is full.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        body = await self._receive(request, limit_bytes)
        self._held_bytes += len(body)
        try:
            yield body
        finally:
            self._held_bytes -= len(body)

    async def _receive(self, request: Request, limit_bytes: int) -> bytes:
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(None) as timeout:
                arriving = _Arriving(timeout)
                self._arriving.append(arriving)
                try:
                    async for chunk in request.stream():
                        arriving.size_bytes += len(chunk)
                        if arriving.size_bytes > limit_bytes:
                            raise _too_large(limit_bytes)
                        self._make_room()
                        if arriving not in self._arriving:
                            raise _too_many()
                        chunks.append(chunk)
                finally:
                    if arriving in self._arriving:
                        self._arriving.remove(arriving)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise _too_many() from None
        return b"".join(chunks)

    def _make_room(self) -> None:
        while self._arriving and self._held_bytes + sum(one.size_bytes for one in self._arriving) > self._limit_bytes:
            self._arriving.pop(0).timeout.reschedule(asyncio.get_running_loop().time())


def _too_many() -> NotNowError:
    return NotNowError("queue_full", "too many large photos are arriving: ask again in a second")


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(ObjectFault.TOO_LARGE, f"the body has more than {limit_bytes} bytes")
