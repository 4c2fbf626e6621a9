"""Search by words, by an uploaded photo, or for more of the same."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from catalog_airflow.pages.access import AnyViewer, Viewer
from catalog_airflow.pages.catalog_access import open_catalog, open_query_client, read_catalog, use_catalog
from catalog_airflow.pages.templating import render_page
from catalog_airflow.pages.thumbnails import open_shrinker
from jobs.database.products import list_categories
from jobs.database.search import ProductHit, format_search, search_by_product
from jobs.errors import PermanentError, RetryableError
from jobs.search.by_image import find_products_by_photo
from jobs.search.by_text import MAX_QUERY_BYTES, find_products_by_text, find_text_fault
from jobs.serve.client import EmbeddedQuery, QueryRefusedError

HITS_SHOWN = 24

router = APIRouter()


class SearchQuery(BaseModel):
    """The address of a search: words, or the product that others shall be like."""

    model_config = ConfigDict(frozen=True)

    q: Annotated[str, Field(max_length=MAX_QUERY_BYTES)] = ""
    like: Annotated[str, Field(max_length=1000)] = ""
    category: Annotated[str, Field(max_length=200)] = ""


@dataclass(frozen=True)
class SearchAnswer:
    """The hits, the most similar first, and the SQL that finds the same."""

    hits: Sequence[ProductHit]
    sql: str


@dataclass(frozen=True)
class _ServiceEncoder:
    """The text tower of one encoder, in the query service."""

    encoder_version_id: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([_read_vector(open_query_client().embed_text(text), self.encoder_version_id) for text in texts])


@router.get("/search")
def show_search(viewer: AnyViewer, query: Annotated[SearchQuery, Query()]) -> HTMLResponse:
    """The forms, and the answer to the words or the product in the address."""
    category = query.category or None
    if query.like:
        return _render_search(viewer, query, partial(_search_like, query.like, category))
    if query.q:
        return _render_search(viewer, query, partial(_search_words, query.q, category))
    return _render_search(viewer, query, None)


@router.post("/search")
async def search_by_photo(
    viewer: AnyViewer, photo: Annotated[UploadFile, File()], category: Annotated[str, Form(max_length=200)] = ""
) -> HTMLResponse:
    """What looks like an uploaded photo, which is kept nowhere."""
    content = await photo.read()
    uploaded = await _draw_upload(content)
    search = partial(_search_photo, content, category or None)
    return await run_in_threadpool(_render_search, viewer, SearchQuery(category=category), search, uploaded)


def _search_words(query_text: str, category: str | None) -> SearchAnswer:
    if (fault := find_text_fault(query_text)) is not None:
        raise QueryRefusedError("unfit_text", fault)
    with use_catalog() as catalog:
        hits = find_products_by_text(catalog.engine, _ServiceEncoder, query_text, HITS_SHOWN, category)
    return SearchAnswer(hits, format_search("search_products", query_text, HITS_SHOWN, category=category))


def _search_like(product_id: str, category: str | None) -> SearchAnswer:
    with read_catalog() as connection:
        hits = search_by_product(connection, product_id, HITS_SHOWN, category)
    return SearchAnswer(hits, format_search("similar_products", product_id, HITS_SHOWN, category=category))


def _search_photo(content: bytes, category: str | None) -> SearchAnswer:
    def embed(encoder_version_id: int) -> np.ndarray:
        return _read_vector(open_query_client().embed_image(content), encoder_version_id)

    with use_catalog() as catalog:
        found = find_products_by_photo(catalog.engine, embed, HITS_SHOWN, category)
    return SearchAnswer(found.hits, found.sql)


def _read_vector(answer: EmbeddedQuery, encoder_version_id: int) -> np.ndarray:
    if answer.model_version_id != encoder_version_id:
        raise RetryableError("another encoder is going live at this moment: ask again in a few seconds")
    return np.asarray(answer.vector, np.float32)


def _render_search(
    viewer: Viewer, query: SearchQuery, search: Callable[[], SearchAnswer] | None, uploaded: str | None = None
) -> HTMLResponse:
    """Answer in place what went wrong, so that nobody has to type their question again."""
    with read_catalog() as connection:
        categories = list_categories(connection)
    answer, fault, status_code = None, "", 200
    try:
        answer = search() if search else None
    except QueryRefusedError as refused:
        fault, status_code = f"This cannot be searched for: {refused.detail}", 422
    except (PermanentError, RetryableError) as error:
        fault, status_code = str(error), 503
    return render_page(
        "search.html",
        viewer,
        status_code=status_code,
        query=query,
        categories=categories,
        answer=answer,
        fault=fault,
        uploaded=uploaded if answer else None,
    )


async def _draw_upload(photo: bytes) -> str | None:
    """The photo as an address that holds it, since it lies nowhere to be asked for; None where it cannot be shown."""
    small = await open_shrinker().shrink(photo, open_catalog().settings)
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}" if isinstance(small, bytes) else None
