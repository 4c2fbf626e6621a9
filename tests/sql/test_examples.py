from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, label_image, promote_model, start_run, store_text, tag_products
from jobs.database.item_failures import ItemFailure, record_failures
from jobs.database.migrations import SQL_FOLDER
from jobs.database.promotions import Switch, insert_switch
from jobs.database.tagging_runs import ChunkCounts, insert_chunk
from tests.sql.conftest import Models

EXAMPLES = sorted((SQL_FOLDER / "examples").glob("*.sql"))


@pytest.fixture
def small_catalog(connection: Connection, models: Models) -> Connection:
    """A catalog with something to find for every example."""
    new = [
        NewImage("a", "dress", [1, 0, 0], 0.9, "a-1.jpg", b"same"),
        NewImage("a", "hat", [0.9, 0.1, 0], 0.4, "a-2.jpg", b"a"),
        NewImage("b", "dress", [1, 0, 0], 0.5, "b-1.jpg", b"same"),
        NewImage("c", "shoes", [0, 0, 1], 0.9, "c-1.jpg", b"c"),
        NewImage("d", None, None, object_key="d-1.jpg", content=b"d"),
    ]
    *_, labeled, broken = add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"a": "dress"}, disagree=True)
    tag_products(connection, models.classifier, {"b": "dress", "c": "shoes"})
    label_image(connection, labeled, "hat")
    store_text(connection, "red dress", "[1, 0, 0]", models.space_id)
    start_run(connection, models.classifier, models.space_id, entries=5)
    insert_chunk(connection, "run", 0, 0, ChunkCounts(5, 4, 0, 1, {"truncated": 1}, 1, 1, 1, 1, 1))
    record_failures(connection, "run", [ItemFailure(broken, "etag", "decode", "truncated", "no end")])
    connection.exec_driver_sql("UPDATE catalog.products SET shop_category = 'Women'")
    before = promote_model(connection, "classifier", is_live=False)
    add_images(connection, [NewImage("e", "dress")], models.space_id, before)
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags
            SELECT image_id, :after, build_id, 'hat', 0.5, top_3, probabilities, content_hash, now()
            FROM catalog.image_tags WHERE classifier_version_id = :before
        """),
        {"before": before, "after": models.classifier},
    )
    insert_switch(connection, Switch("classifier", models.classifier, before))
    return connection


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_states_its_question_and_returns_rows(small_catalog: Connection, example: Path) -> None:
    statement = example.read_text()
    assert statement.startswith("-- ")
    assert "?" in statement.splitlines()[0]
    assert statement.rstrip().endswith(";")
    answer = small_catalog.exec_driver_sql(statement, execution_options={"no_parameters": True})
    assert answer.all(), "the example finds nothing in a catalog that holds something for it"
