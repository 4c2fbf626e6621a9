"""Search by text, by an uploaded image, or by product."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse
from pgvector import HalfVector
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.access import AnyViewer, Viewer
from catalog_airflow.pages.catalog_access import open_catalog, open_query_client, read_catalog, use_catalog
from catalog_airflow.pages.corrections import read_corrections
from catalog_airflow.pages.errors import choose_status
from catalog_airflow.pages.image_query import Chip
from catalog_airflow.pages.images import open_shrinker
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.products import list_categories
from jobs.database.search import (
    HitRange,
    ProductHit,
    SimilarityScale,
    format_search,
    read_product_scale,
    read_text_scale,
    search_by_product,
)
from jobs.errors import PermanentError, RetryableError
from jobs.images.thumbnails import GRID_SIDE
from jobs.search.by_image import find_products_by_image
from jobs.search.by_text import MAX_QUERY_BYTES, find_products_by_text, find_text_problem
from jobs.serve.client import EmbeddedQuery, QueryRefusedError

HITS_SHOWN = 24
MAX_PAGES = 10
"""Later pages would rank thousands of images, and their products have little in common with the query."""

router = APIRouter()


class SearchParameters(BaseModel):
    """The query parameters of a search: a text, or a product to compare with."""

    model_config = ConfigDict(frozen=True)

    q: Annotated[str, Field(max_length=MAX_QUERY_BYTES)] = ""
    like: Annotated[str, Field(max_length=1000)] = ""
    category: Annotated[str, Field(max_length=200)] = ""
    page: Annotated[int, Field(ge=1, le=MAX_PAGES)] = 1

    @property
    def shown(self) -> HitRange:
        """The hits to show."""
        return HitRange(HITS_SHOWN * (self.page - 1), HITS_SHOWN)

    def make_url(self, **changes: object) -> str:
        """Return the address of this search with some changes."""
        return make_url("search", **(self.model_dump(exclude_defaults=True) | changes))


@dataclass(frozen=True)
class SearchResult:
    """A page of hits, most similar first, and SQL that returns the same hits.

    ``is_close`` tells whether the best hit of all pages is a close match.
    """

    hits: Sequence[ProductHit]
    weaker: Sequence[ProductHit]
    is_close: bool
    has_next: bool
    sql: str


def _make_result(found: Sequence[ProductHit], scale: SimilarityScale, shown: HitRange, sql: str) -> SearchResult:
    """Make the page of ``shown.k`` hits or fewer."""
    is_close, page = scale.is_close(found), shown.cut(found)
    weaker = [hit for hit in page if not is_close or scale.is_weak(hit)]
    hits = page[: len(page) - len(weaker)]
    return SearchResult(hits, weaker, is_close, len(found) == shown.k, sql)


@dataclass(frozen=True)
class _ServiceEncoder:
    """The text tower of one encoder, computed by the query service."""

    encoder_version_id: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([_read_vector(open_query_client().embed_text(text), self.encoder_version_id) for text in texts])


@router.get("/search")
def show_search(viewer: AnyViewer, request: Request, query: Annotated[SearchParameters, Query()]) -> HTMLResponse:
    """Show the forms, and the hits for the text or product in the address."""
    if query.like:
        return _render_search(viewer, request, query, partial(_search_similar, query))
    if query.q:
        return _render_search(viewer, request, query, partial(_search_text, query))
    return _render_search(viewer, request, query, None)


@router.post("/search")
async def search_by_image(
    viewer: AnyViewer,
    request: Request,
    image: Annotated[UploadFile, File()],
    category: Annotated[str, Form(max_length=200)] = "",
) -> HTMLResponse:
    """Show the products most similar to an uploaded image. It is not stored, so there is only one page."""
    content = await image.read()
    uploaded = await _make_preview(content)
    query = SearchParameters(category=category)
    search = partial(_search_image, content, query)
    return await run_in_threadpool(_render_search, viewer, request, query, search, uploaded)


def _search_text(query: SearchParameters) -> SearchResult:
    if (problem := find_text_problem(query.q)) is not None:
        raise QueryRefusedError("unfit_text", problem)
    shown, category = query.shown, query.category or None
    with use_catalog() as catalog:
        hits = find_products_by_text(catalog.engine, _ServiceEncoder, query.q, shown.k, category)
        with catalog.engine.connect() as connection:
            scale = read_text_scale(connection, query.q)
    return _make_result(hits, scale, shown, format_search("search_products", query.q, category=category, shown=shown))


def _search_similar(query: SearchParameters) -> SearchResult:
    shown, category = query.shown, query.category or None
    with read_catalog() as connection:
        hits = search_by_product(connection, query.like, shown.k, category)
        scale = read_product_scale(connection, query.like)
    sql = format_search("similar_products", query.like, category=category, shown=shown)
    return _make_result(hits, scale, shown, sql)


def _search_image(content: bytes, query: SearchParameters) -> SearchResult:
    def embed(encoder_version_id: int) -> np.ndarray:
        return _read_vector(open_query_client().embed_image(content), encoder_version_id)

    shown, category = query.shown, query.category or None
    with use_catalog() as catalog:
        found = find_products_by_image(catalog.engine, embed, shown.k, category)
    vector = HalfVector(found.vector).to_text()
    sql = format_search("nearest_products", vector, found.space_id, category=category, shown=shown)
    return _make_result(found.hits, found.scale, shown, sql)


def _read_vector(embedded: EmbeddedQuery, encoder_version_id: int) -> np.ndarray:
    if embedded.model_version_id != encoder_version_id:
        raise RetryableError("another encoder is going live: try again in a few seconds")
    return np.asarray(embedded.vector, np.float32)


def _render_search(
    viewer: Viewer,
    request: Request,
    query: SearchParameters,
    search: Callable[[], SearchResult] | None,
    uploaded: str | None = None,
) -> HTMLResponse:
    """Render the page. After an error, the text stays in its field, so the user does not have to type it again."""
    result, problem, status_code = None, "", 200
    try:
        result = search() if search else None
    except QueryRefusedError as refused:
        problem, status_code = f"Cannot search for this: {refused.detail}", 422
    except (PermanentError, RetryableError) as error:
        problem, status_code = str(error), choose_status(error)
    with read_catalog() as connection:
        categories = list_categories(connection)
        shown = [hit.image_id for hit in (*result.hits, *result.weaker)] if result else []
        corrections = read_corrections(connection, viewer, request, shown)
    has_next = result is not None and result.has_next and not uploaded and query.page < MAX_PAGES
    return render_page(
        "search.html",
        viewer,
        status_code=status_code,
        query=query,
        chips=[Chip(query.category, query.make_url(category="", page=1))] if query.category and not uploaded else [],
        previous_url=query.make_url(page=query.page - 1) if query.page > 1 else None,
        next_url=query.make_url(page=query.page + 1) if has_next else None,
        categories=categories,
        result=result,
        corrections=corrections,
        problem=problem,
        uploaded=uploaded if result else None,
    )


async def _make_preview(image: bytes) -> str | None:
    """Return a thumbnail of the upload as a data URL, because uploads are not stored, or None if there is none."""
    small = await open_shrinker().shrink(image, open_catalog().settings, GRID_SIDE)
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}" if isinstance(small, bytes) else None
