"""Show the image grid with its filters, the page of one product, and thumbnails."""

import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated

from cachetools import LRUCache
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import open_catalog, read_catalog
from catalog_airflow.pages.corrections import read_corrections
from catalog_airflow.pages.image_query import SORTS, GridQuery, list_chips, title_runs
from catalog_airflow.pages.templating import render_page
from jobs.database.grid_choices import list_classifier_choices, list_run_choices
from jobs.database.image_grid import read_image_page
from jobs.database.images import ImageObject, find_image_object
from jobs.database.products import list_categories, read_product
from jobs.database.search import search_by_product
from jobs.errors import NotFoundError, RetryableError
from jobs.failures import ReadReason
from jobs.images.decode import DecodeFailure
from jobs.images.decode_pool import DecodePool
from jobs.images.thumbnails import GRID_SIDE, ZOOM_SIDE, shrink_under_limits
from jobs.settings import Settings
from jobs.storage.locations import S3Uri
from jobs.units import format_words

IMAGES_SHOWN = 60
SIMILAR_SHOWN = 12
DECODE_SECONDS = 2.0
WAIT_SECONDS = 5.0
MAX_PENDING = 16
"""Maximum number of images whose bytes are in memory, including the one being decoded."""
MAX_IMAGE_BYTES = 20_000_000
CACHE_BYTES = 16_000_000
"""Size of the cache for each size of images."""
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


@router.get("/images")
def show_images(viewer: AnyViewer, request: Request, query: Annotated[GridQuery, Query()]) -> HTMLResponse:
    """Show one page of the grid."""
    wanted = query.make_filter()
    with read_catalog() as connection:
        categories, classifiers = list_categories(connection), list_classifier_choices(connection)
        runs = list_run_choices(connection, query.run or None)
        page = read_image_page(connection, wanted, query.after or None, IMAGES_SHOWN)
        corrections = read_corrections(connection, viewer, request, [image.image_id for image in page.images])
    return render_page(
        "images.html",
        viewer,
        query=query,
        categories=categories,
        runs=title_runs(runs),
        classifiers=classifiers,
        sorts=SORTS,
        images=page.images,
        corrections=corrections,
        count=page.count,
        sort=page.sort,
        chips=list_chips(query, runs),
        has_only_tagged=wanted.needs_tags and not replace(wanted, sort="newest").needs_tags,
        view_url=query.make_url(),
        next_url=query.make_url(after=page.next_cursor) if page.next_cursor else None,
        first_url=query.make_url() if query.after else None,
    )


@router.get("/product")
def show_product(
    viewer: AnyViewer,
    request: Request,
    id: Annotated[str, Query(min_length=1, max_length=1000)],  # noqa: A002
) -> HTMLResponse:
    """Show a product. Its id may contain any character of an object key, so it is a parameter and not in the path."""
    with read_catalog() as connection:
        product = read_product(connection, id)
        if product is None:
            raise HTTPException(404, f"There is no product {id!r} in the catalog.")
        try:
            # Without its own savepoint, a failed search would abort the transaction of the statements below.
            with connection.begin_nested():
                similar, problem = search_by_product(connection, id, SIMILAR_SHOWN, None), ""
        except NotFoundError as error:
            similar, problem = [], str(error)
        image_ids = [*(image.image_id for image in product.images), *(hit.image_id for hit in similar)]
        corrections = read_corrections(connection, viewer, request, image_ids)
    return render_page(
        "product.html", viewer, product=product, similar=similar, problem=problem, corrections=corrections
    )


class Shrinker:
    """Shrink images one at a time in a separate process, without blocking the server's threads."""

    def __init__(self) -> None:
        self._pool = DecodePool(1, DECODE_SECONDS)
        self._thread = ThreadPoolExecutor(1, "shrink")
        self._waiting = 0
        # Stop the process before the interpreter waits for it, because a slow image would delay the exit.
        atexit.register(self.close)

    async def shrink(self, content: bytes, settings: Settings, side: int) -> bytes | DecodeFailure | None:
        """Return a JPEG of at most ``side`` pixels per side, or why the image cannot be decoded.

        Return None if the process stays busy for seconds.
        """
        if self._waiting >= MAX_PENDING:
            return None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._pool.decode, shrink_under_limits(settings.images, side), [content]
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
    """The most recently used thumbnails, by image id and etag, of at most ``side`` pixels per side.

    Not thread-safe: use it only from the event loop.
    """

    def __init__(self, size_bytes: int, side: int) -> None:
        self._side = side
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
        small = await open_shrinker().shrink(content, open_catalog().settings, self._side)
        if small is None:
            return Thumbnail(b"", "busy: reload")
        thumbnail = Thumbnail(b"", format_words(small.reason)) if isinstance(small, DecodeFailure) else Thumbnail(small)
        self._kept[key] = thumbnail
        return thumbnail


@cache
def open_cache(side: int) -> ThumbnailCache:
    """Return this server's cache of images of at most ``side`` pixels per side."""
    return ThumbnailCache(CACHE_BYTES, side)


@router.get("/thumbnails/{image_id}")
async def send_thumbnail(image_id: int, request: Request) -> Response:
    """Send a small JPEG, or an SVG with the reason why there is none."""
    return await _send_image(image_id, request, GRID_SIDE)


@router.get("/zoom/{image_id}")
async def send_zoomed(image_id: int, request: Request) -> Response:
    """Send a JPEG that fills a screen, or an SVG with the reason why there is none."""
    return await _send_image(image_id, request, ZOOM_SIDE)


async def _send_image(image_id: int, request: Request, side: int) -> Response:
    source = await run_in_threadpool(_find_source, image_id)
    if source is None:
        return _send_placeholder("no such image")
    etag = f'"{source.etag.replace(chr(34), "")}"'
    headers = {**THUMBNAIL_HEADERS, "Cache-Control": "private, max-age=600", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    thumbnail = await open_cache(side).get(image_id, source)
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
