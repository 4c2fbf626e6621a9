"""Every transaction that changes what is said about a product appends to the feed, and readers miss nothing."""

import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    delete_images,
    label_image,
    open_live_space,
    promote_model,
    register_model,
    tag_products,
)
from jobs.database.changes import (
    START,
    Cursor,
    advance_consumer,
    delete_old_changes,
    read_changes,
    read_consumer,
    read_end,
    require_complete,
)
from jobs.database.products import renew_product_tags
from jobs.database.promotions import Switch, insert_switch
from jobs.errors import PermanentError
from tests.database.conftest import SmallCatalog


def take(connection: Connection) -> list[tuple[str | None, str]]:
    """Return the product and kind of all changes, and delete them. Tests in one transaction see their own rows."""
    statement = text("DELETE FROM catalog.changes RETURNING product_id, kind")
    return sorted(((row.product_id, row.kind) for row in connection.execute(statement)), key=str)


def renew(connection: Connection, classifier: int) -> None:
    """Renew product tags as in a transaction of its own, at whose end the temporary table is dropped."""
    renew_product_tags(connection, classifier)
    connection.execute(text("DROP TABLE stale_products"))


@pytest.fixture
def recorded(connection: Connection, catalog: SmallCatalog) -> SmallCatalog:
    """A catalog whose changes so far were read."""
    take(connection)
    return catalog


def test_new_images_of_new_products_say_nothing_yet(connection: Connection, catalog: SmallCatalog) -> None:
    assert [change for change in take(connection) if change[1] == "images"] == []


def test_tags_of_the_live_classifier_are_changes(connection: Connection, recorded: SmallCatalog) -> None:
    other = register_model(connection, "classifier")
    tag_products(connection, other, {"P1": "hat"})
    assert take(connection) == []
    tag_products(connection, recorded.classifier, {"PX4": "hat"})
    assert take(connection) == [("PX4", "tag")]


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("category = 'hat'", ["P1", "P_3"]),
        ("confidence = CASE product_id WHEN 'P2' THEN 0.81 ELSE 0.8 END", ["P2"]),
        ("category = category, confidence = 0.8, fused_from = 'again', tagged_at = now() + interval '1 day'", []),
        ("images = 2", ["P1", "P2", "P_3"]),
        ("images_disagree = true", ["P2", "P_3"]),
    ],
)
def test_only_a_different_tag_is_a_change(
    connection: Connection, recorded: SmallCatalog, assignment: str, changed: list[str]
) -> None:
    connection.execute(text(f"UPDATE catalog.product_tags SET {assignment}"))
    assert take(connection) == [(product, "tag") for product in changed]


def test_publishing_appends_what_it_changes(connection: Connection, recorded: SmallCatalog) -> None:
    connection.execute(text("UPDATE catalog.image_tags SET probabilities = '{0.1, 0.7, 0.2}'"))
    assert take(connection) == []
    renew(connection, recorded.classifier)
    assert {kind for _, kind in take(connection)} == {"tag"}
    renew(connection, recorded.classifier)
    assert take(connection) == []
    delete_images(connection, [recorded.image_ids["hat"]])
    assert take(connection) == [("P2", "images")]
    renew(connection, recorded.classifier)
    assert take(connection) == [("P2", "tag")]


def test_labels_and_their_undo_are_changes(connection: Connection, recorded: SmallCatalog) -> None:
    label_image(connection, recorded.image_ids["red"], "hat")
    assert take(connection) == [("P1", "label")]
    connection.execute(text("DELETE FROM catalog.labels"))
    assert take(connection) == [("P1", "label"), ("PX4", "label")]


def test_deleted_returned_moved_and_added_images_are_changes(connection: Connection, recorded: SmallCatalog) -> None:
    both = [recorded.image_ids[name] for name in ("boot", "sandal")]
    delete_images(connection, both)
    assert take(connection) == [("P_3", "images")]
    connection.execute(text("UPDATE catalog.images SET deleted_at = NULL, etag = 'other'"))
    assert take(connection) == [("P_3", "images")]
    connection.execute(text("UPDATE catalog.images SET etag = 'third', content_hash = NULL"))
    assert take(connection) == []
    connection.execute(text("UPDATE catalog.images SET product_id = 'P2' WHERE image_id = :id"), {"id": both[0]})
    assert take(connection) == [("P2", "images"), ("P_3", "images")]
    new = add_images(connection, [NewImage("P1", None), NewImage("new", None)], recorded.space_id, recorded.classifier)
    assert take(connection) == [("P1", "images")]
    connection.execute(text("DELETE FROM catalog.images WHERE image_id = ANY (:ids)"), {"ids": new})
    assert take(connection) == [("P1", "images"), ("new", "images")]


def test_a_switch_is_one_change(connection: Connection, recorded: SmallCatalog) -> None:
    classifier = register_model(connection, "classifier")
    renew(connection, classifier)
    insert_switch(connection, Switch("classifier", classifier, recorded.classifier))
    assert take(connection) == [(None, "classifier_switch")]
    open_live_space(connection, 2)
    assert take(connection) == [(None, "encoder_switch")]


def test_changes_are_read_with_the_current_state(engine: Engine) -> None:
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        start = read_end(connection)
        image, _ = add_images(connection, [NewImage("p"), NewImage("gone")], space, classifier)
        tag_products(connection, classifier, {"p": "dress", "gone": "hat"})
    with engine.begin() as connection:
        label_image(connection, image, "hat")
        connection.execute(text("UPDATE catalog.images SET deleted_at = now() WHERE product_id = 'gone'"))
    with engine.connect() as connection:
        changes = read_changes(connection, start, 100)
        assert read_changes(connection, changes[-2].cursor, 100) == changes[-1:]
        assert read_changes(connection, changes[-1].cursor, 100) == []
        assert read_changes(connection, START, 1) == changes[:1]
    of_products = [(change.product_id, change.kind) for change in changes if change.product_id]
    assert sorted(of_products[:2]) == [("gone", "tag"), ("p", "tag")]
    assert of_products[2:] == [("p", "label"), ("gone", "images")]
    states = {change.product_id: change.product for change in changes}
    assert states["gone"] is None
    state = states["p"]
    assert state is not None
    assert (state["category"], state["source"], state["confidence"]) == ("hat", "human", 1)
    assert state["classifier_version_id"] is None


def test_a_late_commit_is_not_skipped(engine: Engine) -> None:
    """Ids are taken before the commit. The row of the earlier transaction appears after that of the later one."""
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        images = add_images(connection, [NewImage("early"), NewImage("late")], space, classifier)
    with engine.connect() as reading:
        start = read_end(reading)
    with engine.connect() as early, engine.begin() as reading:
        label_image(early, images[0], "hat")
        with engine.begin() as late:
            label_image(late, images[1], "hat")
        assert read_changes(reading, start, 100) == []
        early.commit()
        assert [change.product_id for change in read_changes(reading, start, 100)] == ["early", "late"]


def test_a_move_waits_for_the_label_of_the_image(engine: Engine) -> None:
    """Otherwise the label would be recorded for the old product only, and the move could be read before it."""
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        image, _ = add_images(connection, [NewImage("old"), NewImage("new")], space, classifier)
    with engine.connect() as labeling, engine.connect() as moving:
        label_image(labeling, image, "hat")
        moving.execute(text("SET LOCAL lock_timeout = '100ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            moving.execute(text("UPDATE catalog.images SET product_id = 'new' WHERE image_id = :id"), {"id": image})


def test_consumers_that_have_missed_changes_are_told(engine: Engine) -> None:
    for _ in range(2):
        with engine.begin() as connection:
            promote_model(connection, "classifier")
    with engine.begin() as connection:
        open_live_space(connection, 3)
    with engine.begin() as connection:
        assert delete_old_changes(connection) == 0
        require_complete(connection, START)
        first, second, third = read_changes(connection, START, 10)
        # The third has a time before that of the second, as a long transaction has.
        connection.execute(
            text("UPDATE catalog.changes SET happened_at = now() - interval '31 days' WHERE change_id <> :id"),
            {"id": second.change_id},
        )
    with engine.begin() as connection:
        assert delete_old_changes(connection) == 1
        assert delete_old_changes(connection) == 0
        assert [change.cursor for change in read_changes(connection, START, 10)] == [second.cursor, third.cursor]
        require_complete(connection, first.cursor)
        require_complete(connection, read_end(connection))
        with pytest.raises(PermanentError, match="Export again"):
            require_complete(connection, START)
        with pytest.raises(PermanentError, match="restored"):
            require_complete(connection, Cursor(10**15, 0))
        connection.execute(text("UPDATE catalog.changes SET happened_at = now() - interval '31 days'"))
    with engine.begin() as connection:
        assert delete_old_changes(connection) == 2
        require_complete(connection, third.cursor)


def test_the_place_of_a_consumer_is_stored(connection: Connection) -> None:
    assert read_consumer(connection, "shop") is None
    for cursor in (Cursor(5, 3), Cursor(2**40, 7)):
        advance_consumer(connection, "shop", cursor)
        assert read_consumer(connection, "shop") == cursor
    assert Cursor.parse(str(cursor)) == cursor
    for words in ("", "5", "5-", "a-1", "1-2-3", "-1-2", f"1-{2**63}", f"{2**64}-1"):
        with pytest.raises(PermanentError, match="not a cursor"):
            Cursor.parse(words)
