from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Row, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    delete_images,
    label_image,
    open_live_space,
    store_text,
    tag_products,
)
from tests.sql.conftest import LargeCatalog, Models
from tests.sql.questions import ROUTES, refused, take_route

HOSTILE = ["'; DROP TABLE catalog.products; --", "a\nb", "ünï😀", "%s %I $1", '"quoted"', "back\\slash", ""]


def find_similar_images(
    connection: Connection, image_id: int | None, k: int = 10, category: str | None = None
) -> list[Row[Any]]:
    statement = text("SELECT * FROM catalog.similar_images(:image, :k, :category)")
    return list(connection.execute(statement, {"image": image_id, "k": k, "category": category}))


def find_similar_products(
    connection: Connection, product_id: str | None, k: int = 10, category: str | None = None
) -> list[Row[Any]]:
    statement = text("SELECT * FROM catalog.similar_products(:product, :k, :category)")
    return list(connection.execute(statement, {"product": product_id, "k": k, "category": category}))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("category", [None, "dress"])
def test_an_image_is_not_similar_to_itself_but_to_its_copy(
    connection: Connection, models: Models, category: str | None, route: str
) -> None:
    new = [NewImage("p1", vector=[1, 0, 0]), NewImage("p2", vector=[1, 0, 0]), NewImage("p3", vector=[0, 1, 0])]
    image, copy, other = add_images(connection, new, models.space_id, models.classifier)
    take_route(connection, route)
    rows = find_similar_images(connection, image, 10, category)
    assert [(row.image_id, row.similarity) for row in rows] == [(copy, 1), (other, 0)]
    assert [row.image_id for row in find_similar_images(connection, image, 1, category)] == [copy]


def test_similar_images_are_the_true_neighbors(large_catalog: LargeCatalog, large_connection: Connection) -> None:
    for position in range(0, 4000, 900):
        image = int(large_catalog.image_ids[position])
        rows = find_similar_images(large_connection, image, 5, "rare")
        truth = [other for other in large_catalog.rank(large_catalog.vectors[position], "rare") if other != image]
        assert [row.image_id for row in rows] == truth[:5]


def test_images_that_cannot_be_compared_are_refused(connection: Connection, models: Models) -> None:
    new = [NewImage("p", vector=[1, 0, 0]), NewImage("p", vector=None)]
    deleted, not_embedded = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [deleted])
    for image_id, message, hint in (
        (deleted, f"image {deleted} is not in the catalog", "deleted_at"),
        (999, "image 999 is not in the catalog", "catalog.images"),
        (None, "image null is not in the catalog", "catalog.images"),
        (not_embedded, f"image {not_embedded} has no vector yet", "catalog ingest"),
    ):
        with refused(connection, "P0002", message, hint):
            find_similar_images(connection, image_id)


def test_products_are_found_by_their_best_image(connection: Connection, models: Models) -> None:
    new = [
        NewImage("asked", vector=[1, 0, 0]),
        NewImage("asked", vector=[0, 1, 0]),
        NewImage("near", vector=[0, 0, 1], object_key="far.jpg"),
        NewImage("near", vector=[1, 1, 0], object_key="best.jpg"),
        NewImage("far", vector=[1, 0, 1], object_key="only.jpg"),
        NewImage("not embedded"),
    ]
    image_ids = add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"near": "hat"})
    rows = find_similar_products(connection, "asked")
    assert [row.product_id for row in rows] == ["near", "far"]
    assert [row.display_name for row in rows] == ["Name of near", "Name of far"]
    assert [row.category for row in rows] == ["hat", None]
    assert [row.similarity for row in rows] == pytest.approx([1, 0.5], abs=0.001)
    assert [(row.image_id, row.object_key) for row in rows] == [(image_ids[3], "best.jpg"), (image_ids[4], "only.jpg")]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("category", "k"), [("rare", 20), ("unique", 2), ("common", 50), (None, 50)])
def test_a_category_gives_k_other_products(
    large_catalog: LargeCatalog, large_connection: Connection, category: str | None, k: int, route: str
) -> None:
    take_route(large_connection, route)
    rows = find_similar_products(large_connection, "p0000", k, category)
    assert len({row.product_id for row in rows} - {"p0000"}) == k
    assert {row.category for row in rows} == {category} if category else True


def test_similar_products_are_the_true_neighbors(large_catalog: LargeCatalog, large_connection: Connection) -> None:
    images = large_catalog.vectors[:2]
    best: dict[str, float] = {}
    similarities = large_catalog.vectors @ images.mean(axis=0) / np.linalg.norm(images.mean(axis=0))
    for product, category, similarity in zip(
        large_catalog.products, large_catalog.categories, similarities, strict=True
    ):
        if category == "common" and product != "p0000":
            best[product] = max(best.get(product, -1), similarity)
    rows = find_similar_products(large_connection, "p0000", 20, "common")
    assert [row.similarity for row in rows] == pytest.approx(sorted(best.values(), reverse=True)[:20], abs=0.002)
    assert [best[row.product_id] for row in rows] == pytest.approx([row.similarity for row in rows], abs=0.002)


def test_a_product_with_many_images_takes_one_row(connection: Connection, models: Models) -> None:
    new = [NewImage("crowd", vector=[1, i / 1000, 0]) for i in range(100)]
    new += [NewImage("asked", vector=[1, 0, 0]), NewImage("other", vector=[0, 1, 0])]
    add_images(connection, new, models.space_id, models.classifier)
    assert [row.product_id for row in find_similar_products(connection, "asked", 2)] == ["crowd", "other"]


def test_deleted_images_are_in_no_query_and_no_result(connection: Connection, models: Models) -> None:
    new = [
        NewImage("asked", vector=[1, 0, 0]),
        NewImage("asked", vector=[0, 1, 0]),
        NewImage("gone", vector=[0, 1, 0]),
        NewImage("stays", vector=[0, 1, 0]),
        NewImage("stays", vector=[0, 0, 1]),
    ]
    first, _, gone, _, stays = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [first, gone, stays])
    rows = find_similar_products(connection, "asked")
    assert [(row.product_id, row.similarity) for row in rows] == [("stays", 1)]


@pytest.mark.parametrize("route", ROUTES)
def test_a_label_moves_a_product_to_its_category(connection: Connection, models: Models, route: str) -> None:
    new = [NewImage(product, "hat", [1, 0, 0]) for product in ("asked", "hat", "moved", "moved", "untagged")]
    _, _, moved, _, untagged = add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"asked": "hat", "hat": "hat", "moved": "hat"})
    take_route(connection, route)
    label_image(connection, moved, "shoes")
    label_image(connection, untagged, "hat")
    hats = {row.product_id: row.category for row in find_similar_products(connection, "asked", 10, "hat")}
    shoes = {row.product_id: row.category for row in find_similar_products(connection, "asked", 10, "shoes")}
    assert hats == {"hat": "hat", "untagged": "hat"}
    assert shoes == {"moved": "shoes"}


def test_products_that_cannot_be_compared_are_refused(connection: Connection, models: Models) -> None:
    new = [NewImage("gone", vector=[1, 0, 0]), NewImage("new"), NewImage("p", vector=[1, 0, 0])]
    gone, *_ = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [gone])
    for product_id, message, hint in (
        ("gone", "product 'gone' has no image in the catalog", "catalog.current_product_tags"),
        ("unknown", "product 'unknown' has no image in the catalog", "catalog.current_product_tags"),
        (None, "product NULL has no image in the catalog", "catalog.current_product_tags"),
        ("new", "product 'new' has no image with a vector yet", "catalog ingest"),
    ):
        with refused(connection, "P0002", message, hint):
            find_similar_products(connection, product_id)
    with refused(connection, "22023", "k is 0"):
        find_similar_products(connection, "p", 0)


def test_without_a_live_space_nothing_is_compared(connection: Connection) -> None:
    with refused(connection, "55000", "no embedding space is live yet", "catalog ingest"):
        find_similar_products(connection, "p")
    with refused(connection, "55000", "no embedding space is live yet", "catalog ingest"):
        find_similar_images(connection, 1)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_product_ids_are_only_text(connection: Connection, models: Models, hostile: str) -> None:
    new = [NewImage(hostile, vector=[1, 0, 0]), NewImage("other", hostile, [1, 0, 0])]
    add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"other": hostile})
    assert [row.product_id for row in find_similar_products(connection, hostile, 10, hostile)] == ["other"]
    with refused(connection, "P0002", "has no image in the catalog"):
        find_similar_products(connection, hostile + "'")


def test_a_catalog_without_a_classifier_is_searched_without_categories(connection: Connection) -> None:
    space_id = open_live_space(connection, 3)
    new = [NewImage(f"p{number}", None, vector=[1, number, 0]) for number in range(3)]
    image_ids = add_images(connection, new, space_id, classifier=None)
    images = find_similar_images(connection, image_ids[0])
    assert [(row.image_id, row.category, row.confidence) for row in images] == [
        (image_ids[1], None, None),
        (image_ids[2], None, None),
    ]
    assert [(row.product_id, row.category) for row in find_similar_products(connection, "p0")] == [
        ("p1", None),
        ("p2", None),
    ]
    store_text(connection, "a hat", "[1, 0, 0]", space_id)
    found = connection.execute(text("SELECT product_id, category FROM catalog.search_products('a hat')"))
    assert [tuple(row) for row in found] == [("p0", None), ("p1", None), ("p2", None)]
    # A person's label is a category all the same.
    assert find_similar_images(connection, image_ids[0], 10, "dress") == []
    label_image(connection, image_ids[2], "dress")
    assert [row.image_id for row in find_similar_images(connection, image_ids[0], 10, "dress")] == [image_ids[2]]
