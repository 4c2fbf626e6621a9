"""One product: its photos, what was ever said of them, and what looks like it."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import render_page
from jobs.browsing.product_details import read_product
from jobs.errors import PermanentError
from jobs.search.by_product import find_similar_products

SIMILAR_SHOWN = 12

router = APIRouter()


@router.get("/product")
def show_product(viewer: AnyViewer, id: Annotated[str, Query(min_length=1, max_length=1000)]) -> HTMLResponse:  # noqa: A002
    """The product of an id, which may hold any character of a key, and is no path for that reason."""
    with read_catalog() as connection:
        product = read_product(connection, id)
        if product is None:
            raise HTTPException(404, f"There is no product {id!r} in the catalog.")
        try:
            similar, why_none = find_similar_products(connection, id, SIMILAR_SHOWN, None), ""
        except PermanentError as error:
            similar, why_none = [], str(error)
    return render_page("product.html", viewer, product=product, similar=similar, why_none=why_none)
