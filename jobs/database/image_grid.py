"""Queries for the image grid of the pages: images with their tags, filtered, page by page.

Each page is read through an index, starting where the previous page ended. The planner cannot know how tags are
distributed over time or among deleted images, so the query determines what to read first. ``OFFSET 0`` prevents
Postgres from reading a whole table for a join.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    DateTime,
    FromClause,
    Select,
    case,
    cast,
    func,
    literal,
    null,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import REAL

from jobs.database.maps import select_image_ids_in_area
from jobs.database.model_versions import read_live_versions
from jobs.database.records import read_records
from jobs.database.tables import image_tags, images, labels, product_tags, products

MAX_PRODUCTS = 5_000
"""Maximum number of products that a text search considers. Images of further products are not found."""
MAX_SORTED = 30_000
"""If there are at most this many deleted images or tags of a run, all are read and sorted for each page."""

Order = Literal["image", "confidence", "time"]


class BadCursorError(ValueError):
    """The cursor is damaged or belongs to another order."""


def write_cursor(key: str | float | None, image_id: int) -> str:
    """Encode the position after an image, in a list ordered by a key and then by image id."""
    return base64.urlsafe_b64encode(json.dumps([key, image_id]).encode()).decode().rstrip("=")


@dataclass(frozen=True)
class _Place:
    """The key and the id of the last image before a page."""

    key: str | float | None
    image_id: int


def _read_cursor(cursor: str, order: Order) -> _Place:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    match values:
        case [str() | float() | None as key, int() as image_id] if 0 <= image_id < 2**63:
            pass
        case _:
            raise BadCursorError("this page's address is damaged: start again from the first page")
    try:
        fits = {"image": key is None, "confidence": isinstance(key, float), "time": isinstance(key, str)}[order]
        if fits and isinstance(key, str):
            datetime.fromisoformat(key)
    except ValueError:
        fits = False
    if not fits:
        raise BadCursorError("this page's address does not fit the filters: start again from the first page")
    return _Place(key, image_id)


@dataclass(frozen=True)
class ImageFilter:
    """The conditions of the grid. An image must meet all of them.

    ``text`` matches words of product names and the start of product ids. ``run_id`` selects the images that the
    classifier of that run tagged while it ran. With ``classifier_version_id``, the tags shown are those of that
    version. Otherwise they are the current ones: the label if there is one, else the tag of the live classifier.
    ``area`` is a polygon on the map of the live space, as "x,y;x,y;...".
    """

    category: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    images_disagree: bool = False
    run_id: str | None = None
    classifier_version_id: int | None = None
    deleted: bool = False
    text: str = ""
    area: str | None = None

    @property
    def order(self) -> Order:
        """Least confident first if there is a filter on confidence, otherwise newest first."""
        if self.min_confidence is not None or self.max_confidence is not None:
            return "confidence"
        return "time" if self.run_id else "image"

    @property
    def needs_tags(self) -> bool:
        """Whether images without a tag are excluded."""
        return bool(self.category or self.order != "image" or self.classifier_version_id)

    @property
    def has_labels(self) -> bool:
        """Whether labels override tags. They do not if the tags of a version or run are selected."""
        return self.classifier_version_id is None and self.run_id is None


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
        if order == "time":
            assert self.tagged_at is not None
            return write_cursor(self.tagged_at.isoformat(), self.image_id)
        return write_cursor(self.confidence if order == "confidence" else None, self.image_id)


@dataclass(frozen=True)
class ImagePage:
    """A page of images, and the cursor of the next page, if there is one."""

    images: tuple[ImageCard, ...]
    next_cursor: str | None


def read_image_page(connection: Connection, wanted: ImageFilter, after: str | None, size: int) -> ImagePage:
    """Return the ``size`` images after a cursor, or the first ones without a cursor.

    Raises:
        BadCursorError: ``after`` is damaged, or belongs to another order.
    """
    place = None if after is None else _read_cursor(after, wanted.order)
    scope = _find_scope(connection, wanted)
    if scope is None:
        return ImagePage((), None)
    rows = _find_rows(connection, wanted, scope)
    make_statement = _select_tagged if wanted.needs_tags else _select_all
    statement = make_statement(wanted, scope, rows, place, size + 1)
    cards = tuple(read_records(connection.execute(statement), ImageCard))
    next_cursor = cards[size - 1].write_cursor(wanted.order) if len(cards) > size else None
    return ImagePage(cards[:size], next_cursor)


@dataclass(frozen=True)
class _Scope:
    """The classifier whose tags are shown, and the start and end of the selected run."""

    version: int | None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def _find_scope(connection: Connection, wanted: ImageFilter) -> _Scope | None:
    """Return the scope of a filter, or None if its run was never planned."""
    if wanted.run_id is None:
        return _Scope(wanted.classifier_version_id or read_live_versions(connection).classifier)
    statement = text("""
        SELECT coalesce(CAST(:version AS integer), classifier_version_id) AS version, started_at,
               coalesce(finished_at, now()) AS finished_at
        FROM catalog.tagging_runs WHERE run_id = :run
    """)
    parameters = {"run": wanted.run_id, "version": wanted.classifier_version_id}
    return next(read_records(connection.execute(statement, parameters), _Scope), None)


@dataclass(frozen=True)
class _Rows:
    """What to read images from, what to read tags from, and the join of the two."""

    image: FromClause
    tag: FromClause
    joined: FromClause


def _find_rows(connection: Connection, wanted: ImageFilter, scope: _Scope) -> _Rows:
    words = wanted.text.replace("\0", " ").strip()
    few = _select_named(words) if words else None
    if wanted.area:
        source = images if few is None else few
        inside = source.c.image_id.in_(select_image_ids_in_area(wanted.area))
        few = select(source).where(inside).cte("in_area").prefix_with("MATERIALIZED")
    if few is not None:
        return _join_few_images(few, scope)
    if wanted.deleted and wanted.needs_tags:
        deleted = select(images).where(images.c.deleted_at.is_not(None))
        if _are_few(connection, deleted):
            return _join_few_images(deleted.cte("few").prefix_with("MATERIALIZED"), scope)
    if wanted.run_id and wanted.order == "confidence":
        of_run = select(image_tags).where(image_tags.c.classifier_version_id == scope.version, _is_in_run(scope))
        if _are_few(connection, of_run):
            tag = of_run.cte("few").prefix_with("MATERIALIZED")
            image = select(images).where(images.c.image_id == tag.c.image_id).offset(0).lateral("i")
            return _Rows(image, tag, tag.join(image, true()))
    return _Rows(images, image_tags, image_tags.join(images, images.c.image_id == image_tags.c.image_id))


def _select_named(words: str) -> CTE:
    """Select the images of products whose name contains these words or whose id starts with them."""
    vector = func.to_tsvector("simple", func.coalesce(products.c.display_name, ""))
    prefix = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    found = (
        vector.bool_op("@@")(func.plainto_tsquery("simple", words)),
        products.c.product_id.like(prefix),
    )
    parts = [select(products.c.product_id).where(condition).limit(MAX_PRODUCTS) for condition in found]
    named = union(*parts).cte("named").prefix_with("MATERIALIZED")
    of_product = select(images).where(images.c.product_id == named.c.product_id).offset(0).lateral("i")
    return select(of_product).select_from(named.join(of_product, true())).cte("few").prefix_with("MATERIALIZED")


def _join_few_images(few: CTE, scope: _Scope) -> _Rows:
    is_own = image_tags.c.classifier_version_id == scope.version
    tag = select(image_tags).where(image_tags.c.image_id == few.c.image_id, is_own).offset(0).lateral("t")
    return _Rows(few, tag, few.join(tag, true()))


def _are_few(connection: Connection, rows: Select[Any]) -> bool:
    counted = rows.with_only_columns(literal(1)).limit(MAX_SORTED + 1).subquery()
    return bool(connection.execute(select(func.count()).select_from(counted)).scalar_one() <= MAX_SORTED)


def _is_in_run(scope: _Scope) -> ColumnElement[bool]:
    return image_tags.c.tagged_at.between(scope.started_at, scope.finished_at)


def _order_by(order: Order, rows: FromClause) -> list[ColumnElement[Any]]:
    if order == "confidence":
        return [rows.c.confidence, rows.c.image_id]
    return [*([rows.c.tagged_at.desc()] if order == "time" else []), rows.c.image_id.desc()]


def _follows(order: Order, rows: FromClause, place: _Place) -> ColumnElement[bool]:
    if order == "image":
        return rows.c.image_id < place.image_id
    if order == "confidence":
        return tuple_(rows.c.confidence, rows.c.image_id) > tuple_(cast(place.key, REAL), place.image_id)
    key = cast(literal(place.key), DateTime(timezone=True))
    return tuple_(rows.c.tagged_at, rows.c.image_id) < tuple_(key, place.image_id)


def _filter_images(wanted: ImageFilter, scope: _Scope, image: FromClause) -> list[ColumnElement[bool]]:
    is_deleted = image.c.deleted_at.is_not(None)
    conditions: list[ColumnElement[bool]] = [is_deleted if wanted.deleted else ~is_deleted]
    if wanted.images_disagree:
        disagreeing = select(product_tags.c.product_id).where(
            product_tags.c.images_disagree, product_tags.c.classifier_version_id == scope.version
        )
        conditions.append(image.c.product_id.in_(disagreeing))
    return conditions


def _select_all(wanted: ImageFilter, scope: _Scope, rows: _Rows, place: _Place | None, limit: int) -> Select[Any]:
    """Select images with and without tags, newest first."""
    conditions = _filter_images(wanted, scope, rows.image)
    if place is not None:
        conditions.append(_follows("image", rows.image, place))
    i = select(rows.image).where(*conditions).order_by(rows.image.c.image_id.desc()).limit(limit).subquery("shown")
    is_own = (image_tags.c.image_id == i.c.image_id) & (image_tags.c.classifier_version_id == scope.version)
    latest = select(labels.c.category).where(labels.c.image_id == i.c.image_id).order_by(labels.c.label_id.desc())
    label = latest.limit(1).lateral("label")
    has_label = label.c.category.is_not(None)
    return (
        select(
            i.c.image_id,
            i.c.product_id,
            products.c.display_name,
            func.coalesce(label.c.category, image_tags.c.category).label("category"),
            case((has_label, 1), else_=image_tags.c.confidence).label("confidence"),
            case((has_label, "human"), (image_tags.c.category.is_not(None), "model")).label("source"),
            i.c.deleted_at.is_not(None).label("is_deleted"),
            null().label("tagged_at"),
        )
        .select_from(
            i.join(products, products.c.product_id == i.c.product_id)
            .outerjoin(image_tags, is_own)
            .outerjoin(label, true())
        )
        .order_by(i.c.image_id.desc())
    )


def _select_tagged(wanted: ImageFilter, scope: _Scope, rows: _Rows, place: _Place | None, limit: int) -> Select[Any]:
    """Select images by tag or label. Tags and labels are each read in order and then merged."""
    parts = [_select_by_model(wanted, scope, rows, place, limit)]
    if wanted.has_labels:
        parts.append(_select_by_label(wanted, scope, rows, place, limit))
    hit = union_all(*parts).cte("hit").prefix_with("MATERIALIZED")
    return (
        select(hit, images.c.product_id, products.c.display_name, images.c.deleted_at.is_not(None).label("is_deleted"))
        .select_from(
            hit.join(images, images.c.image_id == hit.c.image_id).join(
                products, products.c.product_id == images.c.product_id
            )
        )
        .order_by(*_order_by(wanted.order, hit))
        .limit(limit)
    )


def _select_by_model(wanted: ImageFilter, scope: _Scope, rows: _Rows, place: _Place | None, limit: int) -> Select[Any]:
    image, tag = rows.image, rows.tag
    conditions = [tag.c.classifier_version_id == scope.version, *_filter_images(wanted, scope, image)]
    if wanted.order == "confidence":
        conditions.append(tag.c.confidence.between(*_get_bounds(wanted)))
    if wanted.category:
        conditions.append(tag.c.category == wanted.category)
    if wanted.run_id:
        conditions.append(tag.c.tagged_at.between(scope.started_at, scope.finished_at))
    if wanted.has_labels:
        conditions.append(~select(labels.c.label_id).where(labels.c.image_id == image.c.image_id).exists())
    if place is not None:
        conditions.append(_follows(wanted.order, tag, place))
        if wanted.order == "image":
            conditions.append(_follows("image", image, place))
    return (
        select(image.c.image_id, tag.c.category, tag.c.confidence, literal("model").label("source"), tag.c.tagged_at)
        .select_from(rows.joined)
        .where(*conditions)
        .order_by(*_order_by(wanted.order, image if wanted.order == "image" else tag))
        .limit(limit)
    )


def _select_by_label(wanted: ImageFilter, scope: _Scope, rows: _Rows, place: _Place | None, limit: int) -> Select[Any]:
    later = labels.alias("later")
    is_later = (later.c.image_id == labels.c.image_id) & (later.c.label_id > labels.c.label_id)
    conditions = [~select(later.c.label_id).where(is_later).exists(), *_filter_images(wanted, scope, rows.image)]
    if wanted.order == "confidence":
        # A label counts as a tag with confidence 1.
        conditions.append(_get_bounds(wanted)[1] == 1)
    if wanted.category:
        conditions.append(labels.c.category == wanted.category)
    labeled = (
        select(
            labels.c.image_id,
            labels.c.category,
            cast(1, REAL).label("confidence"),
            literal("human").label("source"),
            labels.c.labeled_at.label("tagged_at"),
        )
        .select_from(labels.join(rows.image, rows.image.c.image_id == labels.c.image_id))
        .where(*conditions)
        .subquery("labeled")
    )
    chosen = select(labeled)
    if place is not None:
        chosen = chosen.where(_follows(wanted.order, labeled, place))
    return chosen.order_by(*_order_by(wanted.order, labeled)).limit(limit)


def _get_bounds(wanted: ImageFilter) -> tuple[ColumnElement[float], ColumnElement[float]]:
    lowest = 0.0 if wanted.min_confidence is None else wanted.min_confidence
    highest = 1.0 if wanted.max_confidence is None else wanted.max_confidence
    return cast(lowest, REAL), cast(highest, REAL)
