"""The process of this server that makes photos small, and for how long a page waits for it."""

import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from jobs.browsing.small_photo import shrink_under_limits
from jobs.errors import RetryableError
from jobs.settings import Settings
from jobs.tagging.decode import DecodeFault
from jobs.tagging.decode_pool import DecodePool

PHOTO_SECONDS = 2.0
PATIENCE_SECONDS = 5.0
MAX_PENDING = 16
"""Photos whose bytes are in memory, the one that is being decoded among them."""


class Shrinker:
    """Makes one photo small at a time; no thread of the server waits for it."""

    def __init__(self) -> None:
        self._pool = DecodePool(1, PHOTO_SECONDS)
        self._thread = ThreadPoolExecutor(1, "shrink")
        self._waiting = 0
        # Before the interpreter joins the process, which a slow photo would hold up.
        atexit.register(self.close)

    async def shrink(self, content: bytes, settings: Settings) -> bytes | DecodeFault | None:
        """A small JPEG, or why there is none; None where that cannot be said within some seconds."""
        if self._waiting >= MAX_PENDING:
            return None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._pool.decode, shrink_under_limits(settings), [content]
        )
        work.add_done_callback(self._count_out)
        try:
            (small,) = await asyncio.wait_for(asyncio.shield(work), PATIENCE_SECONDS)
        except (TimeoutError, RetryableError):
            return None
        return small

    def close(self) -> None:
        """End the process, whatever it does."""
        self._pool.__exit__()
        self._thread.shutdown()

    def _count_out(self, work: "asyncio.Future[list[bytes | DecodeFault]]") -> None:
        self._waiting -= 1
        # Looked at, so that a fault of which nobody hears any more is not called unhandled.
        work.exception()


@cache
def open_shrinker() -> Shrinker:
    """The one of this server."""
    return Shrinker()
