"""The codes of a space follow its vectors and the current tags, and labels at once."""

from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    delete_images,
    label_image,
    open_live_space,
    promote_model,
    tag_products,
    unit_vectors,
)
from jobs.database.spaces import drop_space
from jobs.database.vector_codes import renew_vector_codes


@pytest.fixture
def classifier(connection: Connection) -> int:
    return promote_model(connection, "classifier")


@pytest.fixture
def space(connection: Connection) -> int:
    return open_live_space(connection, 3)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def read_codes(connection: Connection) -> list[tuple[object, ...]]:
    statement = text("""
        SELECT space_id, image_id, image_category, product_category, CAST(code AS text)
        FROM catalog.vector_codes ORDER BY 1, 2
    """)
    return [tuple(row) for row in connection.execute(statement)]


def find_by_code(
    connection: Connection, vector: str, space: int, category: str, by_product: bool, wanted: int = 10
) -> list[int]:
    statement = text("SELECT catalog.images_by_code(CAST(:vector AS halfvec), :space, :category, :by_product, :wanted)")
    found: list[int] = connection.execute(
        statement,
        {"vector": vector, "space": space, "category": category, "by_product": by_product, "wanted": wanted},
    ).scalar_one()
    return found


def test_each_vector_has_a_code_with_its_categories(connection: Connection, classifier: int, space: int) -> None:
    new = [
        NewImage("p", "dress", [0.6, -0.8, 0]),
        NewImage("p", "hat", [-0.6, 0.8, 0]),
        NewImage("q", None, [1, 0, 0]),
        NewImage("q", "hat", None),
    ]
    dress, hat, untagged, _ = add_images(connection, new, space, classifier)
    tag_products(connection, classifier, {"p": "dress"})
    renew_vector_codes(connection, space)
    assert read_codes(connection) == [
        (space, dress, "dress", "dress", "100"),
        (space, hat, "hat", "dress", "010"),
        (space, untagged, None, None, "100"),
    ]


def test_updated_codes_follow_changes_and_leave_the_rest(connection: Connection, classifier: int, space: int) -> None:
    new = [NewImage(product, "dress", [1, 0, 0]) for product in ("stays", "changes", "goes", "loses its vector")]
    stays, changes, goes, loses = add_images(connection, new, space, classifier)
    renew_vector_codes(connection, space)
    read_place = text("SELECT ctid FROM catalog.vector_codes WHERE image_id = :image")
    place = connection.execute(read_place, {"image": stays}).scalar_one()
    connection.execute(
        text("UPDATE catalog.image_embeddings SET embedding = '[-1,0,0]' WHERE image_id = :image"), {"image": changes}
    )
    connection.execute(text("DELETE FROM catalog.image_embeddings WHERE image_id = :image"), {"image": loses})
    delete_images(connection, [goes])
    renew_vector_codes(connection, space)
    assert [(row[1], row[4]) for row in read_codes(connection)] == [(stays, "100"), (changes, "000")]
    assert connection.execute(read_place, {"image": stays}).scalar_one() == place


def test_a_label_counts_before_codes_are_updated(connection: Connection, classifier: int, space: int) -> None:
    new = [NewImage("p", "dress", [1, 0, 0]), NewImage("p", "dress", [0, 1, 0]), NewImage("q", "dress", [0, 0, 1])]
    labeled, sibling, other = add_images(connection, new, space, classifier)
    tag_products(connection, classifier, {"p": "dress", "q": "dress"})
    renew_vector_codes(connection, space)
    label_image(connection, labeled, "hat")
    at_once = read_codes(connection)
    assert [row[1:4] for row in at_once] == [
        (labeled, "hat", "hat"),
        (sibling, "dress", "hat"),
        (other, "dress", "dress"),
    ]
    renew_vector_codes(connection, space)
    assert read_codes(connection) == at_once


def test_a_concurrent_label_neither_blocks_nor_is_reverted(engine: Engine) -> None:
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        (image,) = add_images(connection, [NewImage("p", "dress", [1, 0, 0])], space, classifier)
        renew_vector_codes(connection, space)
    with engine.connect() as labeling, engine.connect() as renewing:
        label_image(labeling, image, "hat")
        renewing.execute(text("SET lock_timeout = '1s'"))
        renew_vector_codes(renewing, space)
        labeling.commit()
        renewing.commit()
        assert read_codes(renewing) == [(space, image, "hat", "hat", "100")]


def test_codes_find_what_is_near_within_a_category(connection: Connection, classifier: int) -> None:
    space = open_live_space(connection, 256)
    vectors = unit_vectors(400, 256, clusters=20, seed=1)
    categories = ["dress", "hat"] * 200
    new = [NewImage("p", category, vector.tolist()) for category, vector in zip(categories, vectors, strict=True)]
    first, *_ = add_images(connection, new, space, classifier)
    renew_vector_codes(connection, space)
    query = vectors[1]
    found = find_by_code(connection, str(query.tolist()), space, "dress", by_product=False, wanted=20)
    dresses = np.arange(0, 400, 2)
    nearest = dresses[np.argsort(-(vectors[dresses] @ query))[:10]]
    assert len(found) == 20
    assert {image - first for image in found} <= set(dresses.tolist())
    assert len({image - first for image in found} & set(nearest.tolist())) >= 8


def test_codes_go_with_the_space(connection: Connection, classifier: int, space: int) -> None:
    add_images(connection, [NewImage("p", vector=[1, 0, 0])], space, classifier)
    renew_vector_codes(connection, space)
    newer = open_live_space(connection, 2)
    add_images(connection, [NewImage("q", vector=[1, 0])], newer, classifier)
    renew_vector_codes(connection, newer)
    drop_space(connection, space)
    assert [row[0] for row in read_codes(connection)] == [newer]
