"""The body of a request, read under limits: of its own bytes, and of those of all requests together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from jobs.query_service.refusals import BodyTooLargeError, NotNowError
from jobs.storage.faults import ObjectFault

BODIES_BYTES = 100_000_000
"""Of all bodies that are in memory, read and not yet decoded; one body alone may be larger."""


class BodyReader:
    """Counts what all requests hold; belongs to the thread of the event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = max(limit_bytes, BODIES_BYTES)
        self._held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body, held for the length of the block.

        Raises:
            BodyTooLargeError: it has more bytes than ``limit_bytes``; the rest is not read.
            NotNowError: the bodies of other requests leave no room.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async for chunk in request.stream():
                size_bytes += len(chunk)
                self._held_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise _too_large(limit_bytes)
                if self._held_bytes > self._limit_bytes:
                    raise NotNowError("queue_full", "too many large photos are being read: ask again in a second")
                chunks.append(chunk)
            yield b"".join(chunks)
        finally:
            self._held_bytes -= size_bytes


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(ObjectFault.TOO_LARGE, f"the body has more than {limit_bytes} bytes")
