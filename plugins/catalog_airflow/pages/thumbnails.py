"""Thumbnails of photos, made on demand under limits, and cached."""

import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from cachetools import LRUCache
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from jobs.database.images import ImageObject, find_image_object
from jobs.errors import RetryableError
from jobs.failures import ReadReason
from jobs.images.decode import DecodeFailure
from jobs.images.decode_pool import DecodePool
from jobs.images.thumbnails import shrink_under_limits
from jobs.settings import Settings
from jobs.storage.locations import S3Uri

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

    async def shrink(self, content: bytes, settings: Settings) -> bytes | DecodeFailure | None:
        """A small JPEG, or why there is none; None where that cannot be said within some seconds."""
        if self._waiting >= MAX_PENDING:
            return None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._pool.decode, shrink_under_limits(settings.images), [content]
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

    def _count_out(self, work: "asyncio.Future[list[bytes | DecodeFailure]]") -> None:
        self._waiting -= 1
        # Looked at, so that a fault of which nobody hears any more is not called unhandled.
        work.exception()


@cache
def open_shrinker() -> Shrinker:
    """The one of this server."""
    return Shrinker()


MAX_BYTES = 20_000_000
CACHE_BYTES = 16_000_000
PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160"><rect width="160" height="160" fill="#8883"/>'
    '<text x="80" y="84" text-anchor="middle" font-family="sans-serif" font-size="13" fill="#888">{words}</text></svg>'
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

router = APIRouter()


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG, or the words to show in its place."""

    content: bytes
    fault: str | None = None


class ThumbnailCache:
    """The thumbnails that were asked for last, by image and version of its bytes; belongs to the event loop."""

    def __init__(self, size_bytes: int) -> None:
        self._kept: LRUCache[tuple[int, str], Thumbnail] = LRUCache(
            size_bytes, getsizeof=lambda thumbnail: len(thumbnail.content) + 200
        )

    async def get(self, image_id: int, source: ImageObject) -> Thumbnail:
        """The thumbnail of an image; raises where the bucket is away."""
        key = (image_id, source.etag)
        if (kept := self._kept.get(key)) is not None:
            return kept
        content = await run_in_threadpool(_read_photo, source)
        if isinstance(content, str):
            # Not kept: the next listing may know better.
            return Thumbnail(b"", content)
        small = await open_shrinker().shrink(content, open_catalog().settings)
        if small is None:
            return Thumbnail(b"", "busy: reload")
        thumbnail = Thumbnail(b"", _say(small.reason)) if isinstance(small, DecodeFailure) else Thumbnail(small)
        self._kept[key] = thumbnail
        return thumbnail


@cache
def open_cache() -> ThumbnailCache:
    """The one of this server."""
    return ThumbnailCache(CACHE_BYTES)


@router.get("/thumbnails/{image_id}")
async def send_thumbnail(image_id: int, request: Request) -> Response:
    """A small JPEG; a picture of the reason where there is none."""
    source = await run_in_threadpool(_find_source, image_id)
    if source is None:
        return _send_placeholder("no such photo")
    mark = f'"{source.etag.replace(chr(34), "")}"'
    headers = {**HEADERS, "Cache-Control": "private, max-age=600", "ETag": mark}
    if request.headers.get("if-none-match") == mark:
        return Response(status_code=304, headers=headers)
    thumbnail = await open_cache().get(image_id, source)
    if thumbnail.fault is not None:
        return _send_placeholder(thumbnail.fault)
    return Response(thumbnail.content, media_type="image/jpeg", headers=headers)


def _find_source(image_id: int) -> ImageObject | None:
    if not 0 <= image_id < 2**63:
        return None
    with read_catalog() as connection:
        return find_image_object(connection, image_id)


def _read_photo(source: ImageObject) -> bytes | str:
    limit = min(MAX_BYTES, open_catalog().settings.images.max_object_bytes)
    if source.size_bytes > limit:
        return "too large to show"
    content = open_catalog().store.read_unchanged(
        S3Uri(source.bucket, source.object_key), source.etag, limit, source.size_bytes
    )
    return _say(content) if isinstance(content, ReadReason) else content


def _say(reason: str) -> str:
    return reason.replace("_", " ")


def _send_placeholder(words: str) -> Response:
    return Response(
        PLACEHOLDER.format(words=words),
        404,
        media_type="image/svg+xml",
        headers=HEADERS | {"Cache-Control": "no-store"},
    )
