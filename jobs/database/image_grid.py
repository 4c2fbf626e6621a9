"""Read and count the images that match a filter, for the image grid of the pages.

The planner cannot know how tags are distributed over time or among deleted images. Each condition is therefore counted
first, from indexes alone and up to a limit. If one condition selects few images, they are all read, counted and sorted.
Otherwise, pages are read through an index (`jobs.database.image_scans`), and the number is estimated from a random
sample. ``OFFSET 0`` prevents Postgres from reading a whole table for a join.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    case,
    cast,
    func,
    literal,
    select,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import REAL

from jobs.database.image_filters import ImageFilter, Order, Place, Sort, read_cursor, write_cursor
from jobs.database.image_scans import add_tags, follows, name_of, order_by, scan_images
from jobs.database.image_scope import Scope, filter_images, find_scope, is_in_run, is_within, select_disagreeing
from jobs.database.images import count_roughly
from jobs.database.maps import select_image_ids_in_area
from jobs.database.records import read_records
from jobs.database.tables import image_tags, images, labels, products

MAX_PRODUCTS = 3_000
"""Maximum number of products that a text search considers. Images of further products are not found."""
MAX_SORTED = 10_000
"""If a condition selects at most this many images, all of them are read, counted and sorted for each page."""
SAMPLE_SIZE = 2_000
"""Number of random images from which larger counts are estimated."""
MIN_SAMPLED = 30
"""With fewer matches in the sample, an estimate could be off by more than a third, so only a bound is shown."""


@dataclass(frozen=True)
class ImageCard:
    """An image in the grid. ``category`` is None if it has no tag."""

    image_id: int
    product_id: str
    display_name: str | None
    category: str | None
    confidence: float | None
    source: Literal["model", "human"] | None
    is_deleted: bool
    tagged_at: datetime | None

    def write_cursor(self, order: Order) -> str:
        """Return the cursor of the page that starts after this image."""
        if order.key == "time":
            assert self.tagged_at is not None
            return write_cursor(self.tagged_at.isoformat(), self.image_id)
        return write_cursor(self.confidence if order.key == "confidence" else None, self.image_id)


@dataclass(frozen=True)
class ImageCount:
    """The number of images that match a filter: exact, estimated, or a bound."""

    number: int
    precision: Literal["exact", "about", "fewer than", "more than"] = "exact"


@dataclass(frozen=True)
class ImagePage:
    """A page of images, the cursor of the next page, if there is one, and the order.

    ``sort`` differs from the sort of the filter if too many images match to sort them by name.
    """

    images: tuple[ImageCard, ...]
    next_cursor: str | None
    count: ImageCount
    sort: Sort


def read_image_page(connection: Connection, wanted: ImageFilter, after: str | None, size: int) -> ImagePage:
    """Return the ``size`` images after a cursor, or the first ones without a cursor.

    Raises:
        BadCursorError: ``after`` is damaged, or belongs to another order.
    """
    scope = find_scope(connection, wanted)
    few = None if scope is None else _find_few(connection, wanted, scope)
    if scope is not None and few is None and wanted.sort == "name":
        wanted = replace(wanted, sort="newest")
    place = None if after is None else read_cursor(after, wanted.order)
    if scope is None:
        return ImagePage((), None, ImageCount(0), wanted.sort)
    if few is None:
        cards = tuple(read_records(connection.execute(scan_images(wanted, scope, place, size + 1)), ImageCard))
        count = _estimate(connection, wanted, scope)
    else:
        matching = _select_matching(wanted, scope, few.rows)
        statement = _select_page(wanted, scope, matching, place, size + 1)
        rows = list(read_records(connection.execute(statement), _Counted))
        cards = tuple(row.card for row in rows)
        count = ImageCount(rows[0].total if rows else 0, "more than" if few.is_cut else "exact")
    next_cursor = cards[size - 1].write_cursor(wanted.order) if len(cards) > size else None
    return ImagePage(cards[:size], next_cursor, count, wanted.sort)


@dataclass(frozen=True)
class _Counted:
    card: ImageCard
    total: int


@dataclass(frozen=True)
class _FewImages:
    """Ids of images that include all matching ones. ``is_cut``: the text matches more products than are considered."""

    rows: CTE
    is_cut: bool = False


def _find_few(connection: Connection, wanted: ImageFilter, scope: Scope) -> _FewImages | None:
    """Return the images that one of the conditions selects, if they are few."""
    if wanted.words:
        return _find_named(connection, wanted.words)
    for condition in _list_conditions(wanted, scope):
        limited = [part.limit(MAX_SORTED + 1) for part in condition]
        if _count(connection, union(*limited).subquery()) <= MAX_SORTED:
            return _FewImages(union(*condition).cte("few").prefix_with("MATERIALIZED"))
    return None


def _find_named(connection: Connection, words: str) -> _FewImages:
    """Return the images of products whose name contains these words or whose id starts with them."""
    vector = func.to_tsvector("simple", func.coalesce(products.c.display_name, ""))
    prefix = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    found = (
        vector.bool_op("@@")(func.plainto_tsquery("simple", words)),
        products.c.product_id.like(prefix),
    )
    parts = [select(products.c.product_id).where(condition).limit(MAX_PRODUCTS) for condition in found]
    is_cut = any(_count(connection, part.subquery()) == MAX_PRODUCTS for part in parts)
    named = union(*parts).cte("named").prefix_with("MATERIALIZED")
    return _FewImages(_select_of_products(named).cte("few").prefix_with("MATERIALIZED"), is_cut)


def _select_of_products(chosen: FromClause) -> Select[Any]:
    of_product = select(images.c.image_id).where(images.c.product_id == chosen.c.product_id).offset(0).lateral("i")
    return select(of_product).select_from(chosen.join(of_product, true()))


def _list_conditions(wanted: ImageFilter, scope: Scope) -> Iterator[Sequence[Select[Any]]]:
    """List selections of image ids, each read from indexes alone. The union of each includes all matching images."""
    if wanted.area:
        yield [select_image_ids_in_area(wanted.area)]
    if wanted.deleted:
        yield [select(images.c.image_id).where(images.c.deleted_at.is_not(None))]
    tagged = select(image_tags.c.image_id).where(image_tags.c.classifier_version_id == scope.version)
    if wanted.run_id:
        yield [tagged.where(is_in_run(image_tags, scope))]
    if wanted.category or wanted.bounds or wanted.needs_tags:
        labeled = select(labels.c.image_id)
        if wanted.category:
            tagged = tagged.where(image_tags.c.category == wanted.category)
            labeled = labeled.where(labels.c.category == wanted.category)
        if wanted.bounds:
            tagged = tagged.where(is_within(image_tags.c.confidence, wanted.bounds))
            labeled = labeled.where(cast(wanted.bounds[1], REAL) == 1)
        yield [tagged, labeled] if wanted.has_labels else [tagged]
    if wanted.images_disagree:
        yield [_select_of_products(select_disagreeing(scope).subquery("disagreeing"))]
    yield [select(images.c.image_id)]


def _select_matching(wanted: ImageFilter, scope: Scope, few: CTE) -> CTE:
    """Select those of few images that meet all conditions, with their tags if a condition or the order needs them."""
    i = select(images).where(images.c.image_id == few.c.image_id).offset(0).lateral("i")
    columns: list[ColumnElement[Any]] = [*i.c]
    joined, conditions = few.join(i, true()), filter_images(wanted, scope, i)
    if wanted.order.key == "name":
        product = select(products).where(products.c.product_id == i.c.product_id).offset(0).lateral("p")
        joined = joined.join(product, true())
        columns.append(name_of(product).label("name"))
    if wanted.needs_tags:
        own = (image_tags.c.image_id == few.c.image_id, image_tags.c.classifier_version_id == scope.version)
        t = select(image_tags).where(*own).offset(0).lateral("t")
        latest = select(labels.c.category).where(labels.c.image_id == few.c.image_id, literal(wanted.has_labels))
        label = latest.order_by(labels.c.label_id.desc()).limit(1).lateral("label")
        joined = joined.outerjoin(t, true()).outerjoin(label, true())
        has_label = label.c.category.is_not(None)
        category = func.coalesce(label.c.category, t.c.category)
        confidence = case((has_label, cast(1, REAL)), else_=t.c.confidence)
        columns += [
            category.label("category"),
            confidence.label("confidence"),
            case((has_label, "human"), else_="model").label("source"),
            t.c.tagged_at,
        ]
        conditions.append(category == wanted.category if wanted.category else category.is_not(None))
        if wanted.bounds:
            conditions.append(is_within(confidence, wanted.bounds))
        if wanted.run_id:
            conditions.append(is_in_run(t, scope))
    return select(*columns).select_from(joined).where(*conditions).cte("matching").prefix_with("MATERIALIZED")


def _select_page(wanted: ImageFilter, scope: Scope, matching: CTE, place: Place | None, limit: int) -> Select[Any]:
    """Select the images after a place, each with the total number of matching images."""
    page = select(matching).order_by(*order_by(wanted.order, matching)).limit(limit)
    if place is not None:
        page = page.where(follows(wanted.order, matching, place))
    shown = page.subquery("shown")
    total = select(func.count()).select_from(matching).scalar_subquery().label("total")
    if not wanted.needs_tags:
        return add_tags(shown, wanted.order, scope).add_columns(total)
    return (
        select(shown, products.c.display_name, shown.c.deleted_at.is_not(None).label("is_deleted"), total)
        .select_from(shown.join(products, products.c.product_id == shown.c.product_id))
        .order_by(*order_by(wanted.order, shown))
    )


def _count(connection: Connection, rows: FromClause) -> int:
    number: int = connection.execute(select(func.count()).select_from(rows)).scalar_one()
    return number


def _estimate(connection: Connection, wanted: ImageFilter, scope: Scope) -> ImageCount:
    """Estimate the number of matching images from a random sample, which the random order of the audit provides."""
    drawn = select(images.c.image_id).order_by(func.hashint8extended(images.c.image_id, 0)).limit(SAMPLE_SIZE)
    sample = drawn.cte("few").prefix_with("MATERIALIZED")
    found = _count(connection, _select_matching(wanted, scope, sample))
    images_by_found = count_roughly(connection, images) / SAMPLE_SIZE
    if found >= MIN_SAMPLED:
        return ImageCount(_round(found * images_by_found), "about")
    # The upper end of a 95 % confidence interval of a small count.
    return ImageCount(_round((found + 3 + 2 * math.sqrt(found)) * images_by_found), "fewer than")


def _round(number: float) -> int:
    """Round to two significant digits."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return int(round(number / unit) * unit)
