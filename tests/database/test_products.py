"""A product with its images, tags and labels."""

from sqlalchemy import Connection, text

from fixtures.catalog_rows import promote_model
from jobs.database.products import read_product
from tests.database.conftest import SmallCatalog


def test_a_product_with_its_images_and_answers(connection: Connection, catalog: SmallCatalog) -> None:
    product = read_product(connection, "P1")
    assert product is not None
    assert (product.display_name, product.category, product.source, product.images_disagree) == (
        "Name of P1",
        "dress",
        "model",
        True,
    )
    assert {(catalog.name(image.image_id), image.category) for image in product.images} == {
        ("red", "dress"),
        ("blue", "hat"),
    }
    assert all(answer.is_current and answer.classifier_version_id == catalog.classifier for answer in product.tags)


def test_a_label_wins_and_the_tag_stays_in_the_history(connection: Connection, catalog: SmallCatalog) -> None:
    product = read_product(connection, "PX4")
    assert product is not None
    assert (product.category, product.source, product.confidence) == ("dress", "human", 1)
    said = {(answer.category, answer.labeled_by, answer.classifier_version_id) for answer in product.tags}
    assert said == {("dress", "tester", None), ("hat", None, catalog.classifier)}
    untagged = next(image for image in product.images if image.image_id == catalog.image_ids["untagged"])
    assert (untagged.category, untagged.source) == (None, None)


def test_a_product_is_what_sql_says_it_is(connection: Connection, catalog: SmallCatalog) -> None:
    """One image of something else does not change its product."""
    connection.execute(
        text("INSERT INTO catalog.labels (image_id, category, labeled_by) VALUES (:image, 'not clothing', 'tester')"),
        {"image": catalog.image_ids["blue"]},
    )
    statement = text("SELECT category, source FROM catalog.current_product_tags WHERE product_id = 'P1'")
    product = read_product(connection, "P1")
    assert product is not None
    assert (product.category, product.source) == tuple(connection.execute(statement).one()) == ("dress", "model")


def test_answers_of_a_replaced_model_stay_and_are_not_live(connection: Connection, catalog: SmallCatalog) -> None:
    promote_model(connection, "classifier")
    product = read_product(connection, "P2")
    assert product is not None
    assert (product.category, product.images[0].category) == (None, None)
    assert [(answer.category, answer.is_current) for answer in product.tags] == [("hat", False)]


def test_an_unknown_product_is_none(connection: Connection) -> None:
    assert read_product(connection, "../<script>'") is None
