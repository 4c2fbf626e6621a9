"""Statements for image filters that match too many images to sort: each page is read through an index, in its order.

A page starts where the previous one ended. Tags and labels are read in order and then merged.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    FromClause,
    Select,
    Subquery,
    case,
    cast,
    func,
    literal,
    null,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import REAL

from jobs.database.image_filters import ImageFilter, Order, Place
from jobs.database.image_scope import Scope, filter_images, is_in_run, is_within
from jobs.database.tables import image_tags, images, labels, products


def scan_images(wanted: ImageFilter, scope: Scope, place: Place | None, limit: int) -> Select[Any]:
    """Select the images after a place. Sorting by name is not supported, because no index has that order."""
    scan = _scan_tagged if wanted.needs_tags else _scan_all
    return scan(wanted, scope, place, limit)


def _scan_all(wanted: ImageFilter, scope: Scope, place: Place | None, limit: int) -> Select[Any]:
    """Select images with and without tags, by image id."""
    conditions = filter_images(wanted, scope, images)
    if place is not None:
        conditions.append(follows(wanted.order, images, place))
    shown = select(images).where(*conditions).order_by(*order_by(wanted.order, images)).limit(limit)
    return add_tags(shown.subquery("shown"), wanted.order, scope)


def add_tags(shown: Subquery, order: Order, scope: Scope) -> Select[Any]:
    """Select the columns of cards for a page of images. Images without a tag stay."""
    i = shown
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
        .order_by(*order_by(order, i))
    )


def _scan_tagged(wanted: ImageFilter, scope: Scope, place: Place | None, limit: int) -> Select[Any]:
    """Select images by tag or label."""
    parts = [_scan_tags(wanted, scope, place, limit)]
    if wanted.has_labels:
        parts.append(_scan_labels(wanted, scope, place, limit))
    hit = union_all(*parts).cte("hit").prefix_with("MATERIALIZED")
    return (
        select(hit, images.c.product_id, products.c.display_name, images.c.deleted_at.is_not(None).label("is_deleted"))
        .select_from(
            hit.join(images, images.c.image_id == hit.c.image_id).join(
                products, products.c.product_id == images.c.product_id
            )
        )
        .order_by(*order_by(wanted.order, hit))
        .limit(limit)
    )


def _scan_tags(wanted: ImageFilter, scope: Scope, place: Place | None, limit: int) -> Select[Any]:
    tag = image_tags
    conditions = [tag.c.classifier_version_id == scope.version, *filter_images(wanted, scope, images)]
    if wanted.bounds:
        conditions.append(is_within(tag.c.confidence, wanted.bounds))
    if wanted.category:
        conditions.append(tag.c.category == wanted.category)
    if wanted.run_id:
        conditions.append(is_in_run(tag, scope))
    if wanted.has_labels:
        conditions.append(~select(labels.c.label_id).where(labels.c.image_id == images.c.image_id).exists())
    if place is not None:
        conditions.append(follows(wanted.order, tag, place))
        if wanted.order.key == "image":
            conditions.append(follows(wanted.order, images, place))
    return (
        select(images.c.image_id, tag.c.category, tag.c.confidence, literal("model").label("source"), tag.c.tagged_at)
        .select_from(tag.join(images, images.c.image_id == tag.c.image_id))
        .where(*conditions)
        .order_by(*order_by(wanted.order, images if wanted.order.key == "image" else tag))
        .limit(limit)
    )


def _scan_labels(wanted: ImageFilter, scope: Scope, place: Place | None, limit: int) -> Select[Any]:
    later = labels.alias("later")
    is_later = (later.c.image_id == labels.c.image_id) & (later.c.label_id > labels.c.label_id)
    conditions = [~select(later.c.label_id).where(is_later).exists(), *filter_images(wanted, scope, images)]
    if wanted.bounds:
        # A label counts as a tag with confidence 1.
        conditions.append(cast(wanted.bounds[1], REAL) == 1)
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
        .select_from(labels.join(images, images.c.image_id == labels.c.image_id))
        .where(*conditions)
        .subquery("labeled")
    )
    chosen = select(labeled)
    if place is not None:
        chosen = chosen.where(follows(wanted.order, labeled, place))
    return chosen.order_by(*order_by(wanted.order, labeled)).limit(limit)


def order_by(order: Order, rows: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns to sort by."""
    return [column.desc() if order.is_descending else column.asc() for column in _list_keys(order, rows)]


def follows(order: Order, rows: FromClause, place: Place) -> ColumnElement[bool]:
    """Return the condition that a row comes after a place."""
    keys = tuple_(*_list_keys(order, rows))
    values: list[ColumnElement[Any]] = [literal(place.image_id)]
    if order.key == "name":
        named = images.join(products, products.c.product_id == images.c.product_id)
        name = select(name_of(products)).select_from(named).where(images.c.image_id == place.image_id)
        values.insert(0, name.scalar_subquery())
    elif order.key != "image":
        values.insert(0, cast(literal(place.key), REAL if order.key == "confidence" else DateTime(timezone=True)))
    return keys < tuple_(*values) if order.is_descending else keys > tuple_(*values)


def name_of(product: FromClause) -> ColumnElement[str]:
    """Return the name that the images of a product are sorted by."""
    return func.lower(func.coalesce(product.c.display_name, product.c.product_id))


def _list_keys(order: Order, rows: FromClause) -> list[ColumnElement[Any]]:
    first = {"time": "tagged_at", "confidence": "confidence", "name": "name"}.get(order.key)
    return [*([rows.c[first]] if first else []), rows.c.image_id]
