from typing import Any

from sqlalchemy import Connection, Row, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, label_image, promote_model, tag_products
from tests.sql.conftest import Models


def read_image_tags(connection: Connection) -> dict[int, Row[Any]]:
    return {row.image_id: row for row in connection.execute(text("SELECT * FROM catalog.current_image_tags"))}


def read_product_tags(connection: Connection) -> dict[str, Row[Any]]:
    return {row.product_id: row for row in connection.execute(text("SELECT * FROM catalog.current_product_tags"))}


def read_champions(connection: Connection) -> dict[str, int]:
    rows = connection.execute(text("SELECT kind, model_version_id FROM catalog.champion_models"))
    return {row.kind: row.model_version_id for row in rows}


def test_the_champion_is_the_latest_promotion_of_its_kind(connection: Connection) -> None:
    assert read_champions(connection) == {}
    encoder, first = promote_model(connection, "encoder", 3), promote_model(connection, "classifier")
    second = promote_model(connection, "classifier")
    assert read_champions(connection) == {"encoder": encoder, "classifier": second}
    connection.execute(
        text("""
            INSERT INTO catalog.promotions (kind, model_version_id, promoted_by, reason)
            VALUES ('classifier', :first, 'tester', 'rollback')
        """),
        {"first": first},
    )
    assert read_champions(connection)["classifier"] == first


def test_an_image_has_the_tag_of_the_champion(connection: Connection, models: Models) -> None:
    new = [NewImage("p", "dress", confidence=0.7), NewImage("p", None), NewImage("p", "hat")]
    tagged, _, deleted = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [deleted])
    tags = read_image_tags(connection)
    assert tags.keys() == {tagged}
    assert tags[tagged]._mapping.items() >= {
        "bucket": "shop", "product_id": "p", "category": "dress", "source": "model",
        "top_3": [], "classifier_version_id": models.classifier,
    }.items()  # fmt: skip
    promote_model(connection, "classifier")
    assert read_image_tags(connection) == {}


def test_the_latest_label_of_an_image_wins(connection: Connection, models: Models) -> None:
    new = [NewImage("p", "dress"), NewImage("p", None), NewImage("p", "dress")]
    tagged, untagged, deleted = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [deleted])
    for image_id in (tagged, untagged, deleted):
        label_image(connection, image_id, "hat")
        label_image(connection, image_id, "shoes")
    tags = read_image_tags(connection)
    assert tags.keys() == {tagged, untagged}
    for row in tags.values():
        assert (row.category, row.source, row.confidence) == ("shoes", "human", 1)
        assert (row.top_3, row.classifier_version_id) == (None, None)


def test_a_product_has_the_tag_of_the_champion(connection: Connection, models: Models) -> None:
    new = [NewImage("here", "dress"), NewImage("gone", "dress"), NewImage("untagged", None)]
    _, gone, _ = add_images(connection, new, models.space_id, models.classifier)
    delete_images(connection, [gone])
    tag_products(connection, models.classifier, {"here": "dress", "gone": "dress"}, disagree=True)
    tags = read_product_tags(connection)
    assert tags.keys() == {"here"}
    row = tags["here"]
    assert (row.display_name, row.category, row.images, row.images_disagree) == ("Name of here", "dress", 1, True)
    assert (row.source, row.classifier_version_id) == ("model", models.classifier)
    promote_model(connection, "classifier")
    assert read_product_tags(connection) == {}


def test_the_latest_label_among_the_images_of_a_product_wins(connection: Connection, models: Models) -> None:
    new = [NewImage("p"), NewImage("p"), NewImage("p"), NewImage("untagged", None)]
    first, second, deleted, untagged = add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"p": "dress"})
    label_image(connection, first, "shoes")
    label_image(connection, second, "hat")
    label_image(connection, deleted, "dress")
    label_image(connection, untagged, "hat")
    delete_images(connection, [deleted])
    tags = read_product_tags(connection)
    assert (tags["p"].category, tags["p"].source, tags["p"].confidence) == ("hat", "human", 1)
    assert (tags["untagged"].category, tags["untagged"].images, tags["untagged"].images_disagree) == ("hat", 0, False)
