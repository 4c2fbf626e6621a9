"""Search by text, by an uploaded image, or by product."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.access import AnyViewer, Viewer
from catalog_airflow.pages.catalog_access import open_catalog, open_query_client, read_catalog, use_catalog
from catalog_airflow.pages.corrections import read_corrections
from catalog_airflow.pages.images import open_shrinker
from catalog_airflow.pages.templating import render_page
from jobs.database.products import list_categories
from jobs.database.search import ProductHit, format_search, search_by_product
from jobs.errors import PermanentError, RetryableError
from jobs.images.thumbnails import GRID_SIDE
from jobs.search.by_image import find_products_by_image
from jobs.search.by_text import MAX_QUERY_BYTES, find_products_by_text, find_text_problem
from jobs.serve.client import EmbeddedQuery, QueryRefusedError

HITS_SHOWN = 24

router = APIRouter()


class SearchParameters(BaseModel):
    """The query parameters of a search: a text, or a product to compare with."""

    model_config = ConfigDict(frozen=True)

    q: Annotated[str, Field(max_length=MAX_QUERY_BYTES)] = ""
    like: Annotated[str, Field(max_length=1000)] = ""
    category: Annotated[str, Field(max_length=200)] = ""


@dataclass(frozen=True)
class SearchResult:
    """The hits, most similar first, and SQL that returns the same hits."""

    hits: Sequence[ProductHit]
    sql: str


@dataclass(frozen=True)
class _ServiceEncoder:
    """The text tower of one encoder, computed by the query service."""

    encoder_version_id: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([_read_vector(open_query_client().embed_text(text), self.encoder_version_id) for text in texts])


@router.get("/search")
def show_search(viewer: AnyViewer, request: Request, query: Annotated[SearchParameters, Query()]) -> HTMLResponse:
    """Show the forms, and the hits for the text or product in the address."""
    category = query.category or None
    if query.like:
        return _render_search(viewer, request, query, partial(_search_similar, query.like, category))
    if query.q:
        return _render_search(viewer, request, query, partial(_search_text, query.q, category))
    return _render_search(viewer, request, query, None)


@router.post("/search")
async def search_by_image(
    viewer: AnyViewer,
    request: Request,
    image: Annotated[UploadFile, File()],
    category: Annotated[str, Form(max_length=200)] = "",
) -> HTMLResponse:
    """Show the products most similar to an uploaded image, which is not stored."""
    content = await image.read()
    uploaded = await _make_preview(content)
    search = partial(_search_image, content, category or None)
    query = SearchParameters(category=category)
    return await run_in_threadpool(_render_search, viewer, request, query, search, uploaded)


def _search_text(query_text: str, category: str | None) -> SearchResult:
    if (problem := find_text_problem(query_text)) is not None:
        raise QueryRefusedError("unfit_text", problem)
    with use_catalog() as catalog:
        hits = find_products_by_text(catalog.engine, _ServiceEncoder, query_text, HITS_SHOWN, category)
    return SearchResult(hits, format_search("search_products", query_text, HITS_SHOWN, category=category))


def _search_similar(product_id: str, category: str | None) -> SearchResult:
    with read_catalog() as connection:
        hits = search_by_product(connection, product_id, HITS_SHOWN, category)
    return SearchResult(hits, format_search("similar_products", product_id, HITS_SHOWN, category=category))


def _search_image(content: bytes, category: str | None) -> SearchResult:
    def embed(encoder_version_id: int) -> np.ndarray:
        return _read_vector(open_query_client().embed_image(content), encoder_version_id)

    with use_catalog() as catalog:
        found = find_products_by_image(catalog.engine, embed, HITS_SHOWN, category)
    return SearchResult(found.hits, found.sql)


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
        problem, status_code = str(error), 503
    with read_catalog() as connection:
        categories = list_categories(connection)
        corrections = read_corrections(
            connection, viewer, request, [hit.image_id for hit in result.hits] if result else []
        )
    return render_page(
        "search.html",
        viewer,
        status_code=status_code,
        query=query,
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
