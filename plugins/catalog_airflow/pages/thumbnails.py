"""Photos made small on the fly: asked for by image id, under limits, and kept for a while."""

from dataclasses import dataclass
from functools import cache

from cachetools import LRUCache
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from catalog_airflow.pages.shrinking import open_shrinker
from jobs.browsing.thumbnail_source import ThumbnailSource, find_thumbnail_source
from jobs.storage.faults import ObjectFault
from jobs.storage.uri import S3Uri
from jobs.tagging.decode import DecodeFault

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

    async def get(self, image_id: int, source: ThumbnailSource) -> Thumbnail:
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
        thumbnail = Thumbnail(b"", _say(small.reason)) if isinstance(small, DecodeFault) else Thumbnail(small)
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


def _find_source(image_id: int) -> ThumbnailSource | None:
    if not 0 <= image_id < 2**63:
        return None
    with read_catalog() as connection:
        return find_thumbnail_source(connection, image_id)


def _read_photo(source: ThumbnailSource) -> bytes | str:
    limit = min(MAX_BYTES, open_catalog().settings.max_object_bytes)
    if source.size_bytes > limit:
        return "too large to show"
    content = open_catalog().store.read_unchanged(
        S3Uri(source.bucket, source.object_key), source.etag, limit, source.size_bytes
    )
    return _say(content) if isinstance(content, ObjectFault) else content


def _say(reason: str) -> str:
    return reason.replace("_", " ")


def _send_placeholder(words: str) -> Response:
    return Response(
        PLACEHOLDER.format(words=words),
        404,
        media_type="image/svg+xml",
        headers=HEADERS | {"Cache-Control": "no-store"},
    )
