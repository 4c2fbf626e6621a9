"""Rolling back to an earlier model in one transaction."""

import pytest

from fixtures.catalog_rows import NewImage, add_images, delete_images, promote_model, tag_products
from fixtures.shop import Shop
from jobs.database.model_versions import ModelKind
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, drop_space, find_live_space, make_space_live, open_space
from jobs.errors import PermanentError
from jobs.retag.rollback import roll_back

LIVE = "SELECT model_version_id FROM catalog.live_models WHERE kind = :kind"
CHAMPION = "SELECT model_version_id FROM catalog.champion_models WHERE kind = :kind"
CATEGORIES = "SELECT category, count(*) FROM catalog.current_image_tags GROUP BY 1"


def add_encoder(shop: Shop, *, is_live: bool = True) -> tuple[int, int]:
    """Add a champion encoder with an indexed space, and return the ids of both."""
    with shop.connections.engine.begin() as connection:
        encoder = promote_model(connection, "encoder", 3)
        space_id = open_space(connection, encoder, 3)
        create_space_index(connection, space_id)
        if is_live:
            make_space_live(connection, space_id)
    return encoder, space_id


def test_an_earlier_classifier_goes_live_at_once(shop: Shop) -> None:
    _, space_id = add_encoder(shop)
    with shop.connections.engine.begin() as connection:
        old = promote_model(connection, "classifier")
        add_images(connection, [NewImage("p", "dress", [1, 0, 0]), NewImage("q", "dress", [0, 1, 0])], space_id, old)
        tag_products(connection, old, {"p": "dress", "q": "dress"})
        new = promote_model(connection, "classifier")
        add_images(connection, [NewImage("r", "hat")], space_id, new)
    assert shop.query(CATEGORIES) == [("hat", 1)]
    report = roll_back(shop.connections, "classifier", None, "anna", "it sees hats everywhere")
    assert (report.model_version_id, report.replaced_version_id) == (old, new)
    assert (report.is_new, report.is_live) == (True, True)
    assert shop.query(CATEGORIES) == [("dress", 2)]
    assert shop.query("SELECT category FROM catalog.current_product_tags") == [("dress",), ("dress",)]
    shop.assert_codes_are_current()
    ((evaluation, by, reason),) = shop.query(
        "SELECT evaluation_id, promoted_by, reason FROM catalog.promotions ORDER BY promotion_id DESC LIMIT 1"
    )
    assert (evaluation, by, reason) == (None, "anna", "it sees hats everywhere")


def test_product_tags_are_renewed_from_the_current_images(shop: Shop) -> None:
    _, space_id = add_encoder(shop)
    with shop.connections.engine.begin() as connection:
        old = promote_model(connection, "classifier")
        gone = add_images(connection, [NewImage("p", "dress")], space_id, old)
        tag_products(connection, old, {"p": "dress"})
        promote_model(connection, "classifier")
        delete_images(connection, gone)
    roll_back(shop.connections, "classifier")
    assert shop.query("SELECT * FROM catalog.product_tags") == []


def test_images_that_the_earlier_model_has_not_processed_are_counted(shop: Shop) -> None:
    _, space_id = add_encoder(shop)
    with shop.connections.engine.begin() as connection:
        old = promote_model(connection, "classifier")
        add_images(connection, [NewImage("p", "dress", content=b"x")], space_id, old)
        new = promote_model(connection, "classifier")
        add_images(connection, [NewImage("q", "hat"), NewImage("r", "hat")], space_id, new)
    assert roll_back(shop.connections, "classifier").unprocessed_images == 2


def test_the_space_of_an_earlier_encoder_goes_live_at_once(shop: Shop) -> None:
    (old, old_space), (new, _) = add_encoder(shop), add_encoder(shop)
    report = roll_back(shop.connections, "encoder")
    assert (report.model_version_id, report.replaced_version_id, report.is_live) == (old, new, True)
    with shop.connections.engine.connect() as connection:
        assert find_live_space(connection) == old_space
    assert shop.query(LIVE, kind="encoder") == [(old,)]


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_repeated_rollback_changes_nothing_without_a_version(shop: Shop, kind: ModelKind) -> None:
    if kind == "encoder":
        (old, _), (new, _) = add_encoder(shop), add_encoder(shop)
    else:
        with shop.connections.engine.begin() as connection:
            old, new = (promote_model(connection, "classifier") for _ in range(2))
    reports = [roll_back(shop.connections, kind) for _ in range(3)]
    assert [(report.model_version_id, report.is_new, report.is_live) for report in reports] == [
        (old, True, True),
        (old, False, True),
        (old, False, True),
    ]
    assert shop.query(LIVE, kind=kind) == shop.query(CHAMPION, kind=kind) == [(old,)]
    assert shop.query("SELECT count(*) FROM catalog.promotions WHERE kind = :kind", kind=kind) == [(3,)]
    assert roll_back(shop.connections, kind, new).is_new
    assert shop.query(LIVE, kind=kind) == [(new,)]


def test_a_rollback_to_a_named_version(shop: Shop) -> None:
    with shop.connections.engine.begin() as connection:
        first, _, third = (promote_model(connection, "classifier") for _ in range(3))
    assert roll_back(shop.connections, "classifier", first).replaced_version_id == third
    again = roll_back(shop.connections, "classifier", first)
    assert (again.model_version_id, again.is_new) == (first, False)
    assert shop.query(LIVE, kind="classifier") == [(first,)]


def test_a_promotion_that_never_went_live_is_undone_without_a_switch(shop: Shop) -> None:
    with shop.connections.engine.begin() as connection:
        live = promote_model(connection, "classifier")
        promote_model(connection, "classifier", is_live=False)
    report = roll_back(shop.connections, "classifier")
    assert (report.model_version_id, report.is_live) == (live, True)
    assert shop.query(CHAMPION, kind="classifier") == [(live,)]
    assert shop.query("SELECT count(*) FROM catalog.switches") == [(1,)]


def test_versions_that_were_never_live_are_skipped(shop: Shop) -> None:
    with shop.connections.engine.begin() as connection:
        first = promote_model(connection, "classifier")
        never_live = promote_model(connection, "classifier", is_live=False)
        third = promote_model(connection, "classifier", is_live=False)
        insert_switch(connection, Switch("classifier", third, first))
    with pytest.raises(PermanentError, match=f"classifier {never_live} was never live"):
        roll_back(shop.connections, "classifier", never_live)
    assert roll_back(shop.connections, "classifier").model_version_id == first


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_rollback_without_an_earlier_version_is_refused(shop: Shop, kind: ModelKind) -> None:
    with pytest.raises(PermanentError, match=f"no {kind} was promoted yet"):
        roll_back(shop.connections, kind)
    add_encoder(shop)
    with shop.connections.engine.begin() as connection:
        promote_model(connection, "classifier")
    with pytest.raises(PermanentError, match="there is none before it"):
        roll_back(shop.connections, kind)


def test_an_encoder_whose_space_was_dropped_is_refused(shop: Shop) -> None:
    (old, old_space), (new, _) = add_encoder(shop), add_encoder(shop)
    with shop.connections.engine.begin() as connection:
        drop_space(connection, old_space)
    with pytest.raises(PermanentError, match=f"the space of encoder {old} was dropped"):
        roll_back(shop.connections, "encoder")
    assert shop.query(CHAMPION, kind="encoder") == shop.query(LIVE, kind="encoder") == [(new,)]
