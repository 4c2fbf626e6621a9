"""Show the image grid with its filters, the page of one product, and thumbnails."""

import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from cachetools import LRUCache
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from catalog_airflow.pages.templating import format_words, make_url, render_page
from jobs.database.image_grid import ImageFilter, read_image_page
from jobs.database.images import ImageObject, find_image_object
from jobs.database.products import list_categories, read_product
from jobs.database.search import search_by_product
from jobs.errors import NotFoundError, RetryableError
from jobs.failures import ReadReason
from jobs.images.decode import DecodeFailure
from jobs.images.decode_pool import DecodePool
from jobs.images.thumbnails import shrink_under_limits
from jobs.settings import Settings
from jobs.storage.locations import S3Uri

IMAGES_SHOWN = 60
SIMILAR_SHOWN = 12
DECODE_SECONDS = 2.0
WAIT_SECONDS = 5.0
MAX_PENDING = 16
"""Maximum number of images whose bytes are in memory, including the one being decoded."""
MAX_IMAGE_BYTES = 20_000_000
CACHE_BYTES = 16_000_000
PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160"><rect width="160" height="160" fill="#8883"/>'
    '<text x="80" y="84" text-anchor="middle" font-family="sans-serif" font-size="13" fill="#888">{text}</text></svg>'
)
THUMBNAIL_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

router = APIRouter()

# Forms send empty fields as empty strings.
Bound = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(lambda value: None if value == "" else value)
]
VersionParameter = Annotated[
    Annotated[int, Field(ge=1, lt=2**31)] | None, BeforeValidator(lambda value: None if value == "" else value)
]

CORNER = r"-?\d{1,3}(\.\d{1,2})?,-?\d{1,3}(\.\d{1,2})?"
AREA = rf"^({CORNER}(;{CORNER}){{2,49}})?$"
"""The corners of a polygon on the map."""


class GridQuery(BaseModel):
    """The query parameters of the grid."""

    model_config = ConfigDict(frozen=True)

    category: Annotated[str, Field(max_length=200)] = ""
    min_confidence: Bound = None
    max_confidence: Bound = None
    disagree: bool = False
    run: Annotated[str, Field(max_length=500)] = ""
    version: VersionParameter = None
    deleted: bool = False
    text: Annotated[str, Field(max_length=500)] = ""
    area: Annotated[str, Field(max_length=800, pattern=AREA)] = ""
    after: Annotated[str, Field(max_length=500)] = ""

    def make_filter(self) -> ImageFilter:
        """Return the filter for these parameters."""
        return ImageFilter(
            category=self.category or None,
            min_confidence=self.min_confidence,
            max_confidence=self.max_confidence,
            images_disagree=self.disagree,
            run_id=self.run or None,
            classifier_version_id=self.version,
            deleted=self.deleted,
            text=self.text,
            area=self.area or None,
        )


@router.get("/images")
def show_images(viewer: AnyViewer, query: Annotated[GridQuery, Query()]) -> HTMLResponse:
    """Show one page of the grid."""
    with read_catalog() as connection:
        categories = list_categories(connection)
        page = read_image_page(connection, query.make_filter(), query.after or None, IMAGES_SHOWN)
    address = query.model_dump()
    return render_page(
        "images.html",
        viewer,
        query=query,
        categories=categories,
        images=page.images,
        is_filtered=query != GridQuery(after=query.after),
        next_url=make_url("images", **{**address, "after": page.next_cursor}) if page.next_cursor else None,
        first_url=make_url("images", **{**address, "after": ""}) if query.after else None,
    )


@router.get("/product")
def show_product(viewer: AnyViewer, id: Annotated[str, Query(min_length=1, max_length=1000)]) -> HTMLResponse:  # noqa: A002
    """Show a product. Its id may contain any character of an object key, so it is a parameter and not in the path."""
    with read_catalog() as connection:
        product = read_product(connection, id)
        if product is None:
            raise HTTPException(404, f"There is no product {id!r} in the catalog.")
        try:
            similar, problem = search_by_product(connection, id, SIMILAR_SHOWN, None), ""
        except NotFoundError as error:
            similar, problem = [], str(error)
    return render_page("product.html", viewer, product=product, similar=similar, problem=problem)


class Shrinker:
    """Shrink images one at a time in a separate process, without blocking the server's threads."""

    def __init__(self) -> None:
        self._pool = DecodePool(1, DECODE_SECONDS)
        self._thread = ThreadPoolExecutor(1, "shrink")
        self._waiting = 0
        # Stop the process before the interpreter waits for it, because a slow image would delay the exit.
        atexit.register(self.close)

    async def shrink(self, content: bytes, settings: Settings) -> bytes | DecodeFailure | None:
        """Return a small JPEG, or why the image cannot be decoded, or None if the process stays busy for seconds."""
        if self._waiting >= MAX_PENDING:
            return None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._pool.decode, shrink_under_limits(settings.images), [content]
        )
        work.add_done_callback(self._finish)
        try:
            (small,) = await asyncio.wait_for(asyncio.shield(work), WAIT_SECONDS)
        except (TimeoutError, RetryableError):
            return None
        return small

    def close(self) -> None:
        """Stop the process at once."""
        self._pool.__exit__()
        self._thread.shutdown()

    def _finish(self, work: "asyncio.Future[list[bytes | DecodeFailure]]") -> None:
        self._waiting -= 1
        # Retrieve the exception, or asyncio logs it as unhandled if the caller has given up.
        work.exception()


@cache
def open_shrinker() -> Shrinker:
    """Return the shrinker of this server."""
    return Shrinker()


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG, or the text to show in its place."""

    content: bytes
    problem: str | None = None


class ThumbnailCache:
    """The most recently used thumbnails, by image id and etag. Not thread-safe: use it only from the event loop."""

    def __init__(self, size_bytes: int) -> None:
        self._kept: LRUCache[tuple[int, str], Thumbnail] = LRUCache(
            size_bytes, getsizeof=lambda thumbnail: len(thumbnail.content) + 200
        )

    async def get(self, image_id: int, source: ImageObject) -> Thumbnail:
        """Return the thumbnail of an image, or raise RetryableError if the bucket is unavailable."""
        key = (image_id, source.etag)
        if (kept := self._kept.get(key)) is not None:
            return kept
        content = await run_in_threadpool(_read_image, source)
        if isinstance(content, str):
            # Not cached, because the next listing may find other bytes.
            return Thumbnail(b"", content)
        small = await open_shrinker().shrink(content, open_catalog().settings)
        if small is None:
            return Thumbnail(b"", "busy: reload")
        thumbnail = Thumbnail(b"", format_words(small.reason)) if isinstance(small, DecodeFailure) else Thumbnail(small)
        self._kept[key] = thumbnail
        return thumbnail


@cache
def open_cache() -> ThumbnailCache:
    """Return the cache of this server."""
    return ThumbnailCache(CACHE_BYTES)


@router.get("/thumbnails/{image_id}")
async def send_thumbnail(image_id: int, request: Request) -> Response:
    """Send a small JPEG, or an SVG with the reason why there is none."""
    source = await run_in_threadpool(_find_source, image_id)
    if source is None:
        return _send_placeholder("no such image")
    etag = f'"{source.etag.replace(chr(34), "")}"'
    headers = {**THUMBNAIL_HEADERS, "Cache-Control": "private, max-age=600", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    thumbnail = await open_cache().get(image_id, source)
    if thumbnail.problem is not None:
        return _send_placeholder(thumbnail.problem)
    return Response(thumbnail.content, media_type="image/jpeg", headers=headers)


def _find_source(image_id: int) -> ImageObject | None:
    if not 0 <= image_id < 2**63:
        return None
    with read_catalog() as connection:
        return find_image_object(connection, image_id)


def _read_image(source: ImageObject) -> bytes | str:
    limit = min(MAX_IMAGE_BYTES, open_catalog().settings.images.max_object_bytes)
    if source.size_bytes > limit:
        return "too large to show"
    content = open_catalog().store.read_unchanged(
        S3Uri(source.bucket, source.object_key), source.etag, limit, source.size_bytes
    )
    return format_words(content) if isinstance(content, ReadReason) else content


def _send_placeholder(text: str) -> Response:
    return Response(
        PLACEHOLDER.format(text=text),
        404,
        media_type="image/svg+xml",
        headers=THUMBNAIL_HEADERS | {"Cache-Control": "no-store"},
    )
