"""The photo grid with its filters, and the page of one product."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import make_url, render_page
from jobs.database.image_grid import ImageFilter, read_image_page
from jobs.database.products import list_categories, read_product
from jobs.database.search import search_by_product
from jobs.errors import NotFoundError

PAGE_SIZE = 60

router = APIRouter()

# A form sends what was left empty as an empty text.
Bound = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(lambda value: None if value == "" else value)
]
Version = Annotated[
    Annotated[int, Field(ge=1, lt=2**31)] | None, BeforeValidator(lambda value: None if value == "" else value)
]


class GridQuery(BaseModel):
    """The address of a page of the grid."""

    model_config = ConfigDict(frozen=True)

    category: Annotated[str, Field(max_length=200)] = ""
    min_confidence: Bound = None
    max_confidence: Bound = None
    disagree: bool = False
    run: Annotated[str, Field(max_length=500)] = ""
    version: Version = None
    deleted: bool = False
    text: Annotated[str, Field(max_length=500)] = ""
    after: Annotated[str, Field(max_length=500)] = ""

    def make_filter(self) -> ImageFilter:
        """As the query wants it."""
        return ImageFilter(
            category=self.category or None,
            min_confidence=self.min_confidence,
            max_confidence=self.max_confidence,
            photos_disagree=self.disagree,
            run_id=self.run or None,
            classifier_version_id=self.version,
            deleted=self.deleted,
            text=self.text,
        )


@router.get("/photos")
def show_photos(viewer: AnyViewer, query: Annotated[GridQuery, Query()]) -> HTMLResponse:
    """One page of the grid."""
    with read_catalog() as connection:
        categories = list_categories(connection)
        page = read_image_page(connection, query.make_filter(), query.after or None, PAGE_SIZE)
    address = query.model_dump()
    return render_page(
        "photos.html",
        viewer,
        query=query,
        categories=categories,
        photos=page.images,
        is_filtered=query != GridQuery(after=query.after),
        next_url=make_url("photos", **{**address, "after": page.next_cursor}) if page.next_cursor else None,
        first_url=make_url("photos", **{**address, "after": ""}) if query.after else None,
    )


SIMILAR_SHOWN = 12


@router.get("/product")
def show_product(viewer: AnyViewer, id: Annotated[str, Query(min_length=1, max_length=1000)]) -> HTMLResponse:  # noqa: A002
    """The product of an id, which may hold any character of a key, and is no path for that reason."""
    with read_catalog() as connection:
        product = read_product(connection, id)
        if product is None:
            raise HTTPException(404, f"There is no product {id!r} in the catalog.")
        try:
            similar, why_none = search_by_product(connection, id, SIMILAR_SHOWN, None), ""
        except NotFoundError as error:
            similar, why_none = [], str(error)
    return render_page("product.html", viewer, product=product, similar=similar, why_none=why_none)
