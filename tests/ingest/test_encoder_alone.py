"""Ingest without a classifier. Images get vectors, but no tags until there is a classifier."""

import pytest

from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels, make_image
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, preview_run
from jobs.retag.retag import retag

VECTORS = "SELECT image_id, embedded_at, embedding::text FROM catalog.image_embeddings ORDER BY image_id, space_id"
TAGS = "SELECT count(*) FROM catalog.image_tags"
LIVE_SPACE = "SELECT space_id FROM catalog.embedding_spaces WHERE state = 'live'"


@pytest.fixture
def embedding_shop(shop: Shop, tiny_models: TinyModels) -> Shop:
    """Set up a shop with ten images (two are copies, one is broken) whose only champion is an encoder."""
    make_champion(shop.connections, tiny_models.encoder, "encoder")
    shop.put_images(7)
    for number in range(2):
        shop.put(f"copy{number}_1.jpg", make_image(0))
    shop.put("broken_1.jpg", b"<html>")
    return shop


def test_images_get_vectors_and_no_tags(embedding_shop: Shop) -> None:
    preview = preview_run(embedding_shop.connections, IngestOptions())
    assert (preview.entries, preview.entries_by_reason) == (10, {"new": 10})
    report = ingest(embedding_shop.connections, IngestOptions())
    assert (report.entries, report.tagged, report.reused, report.failed) == (10, 7, 2, 1)
    assert (report.state, report.drift, report.requests_retraining) == ("succeeded", None, False)
    assert embedding_shop.query(TAGS) == [(0,)]
    assert embedding_shop.query("SELECT count(*) FROM catalog.image_embeddings") == [(9,)]
    assert embedding_shop.query("SELECT classifier_version_id FROM catalog.tagging_runs") == [(None,)]
    similar = embedding_shop.query("SELECT product_id, category FROM catalog.similar_products('p0000', 20)")
    assert len(similar) == 5
    assert {category for _, category in similar} == {None}


def test_a_second_run_embeds_only_changed_images(embedding_shop: Shop) -> None:
    ingest(embedding_shop.connections, IngestOptions())
    assert ingest(embedding_shop.connections, IngestOptions()).entries == 0
    embedding_shop.put("p0000_1.jpg", make_image(777))
    plan = preview_run(embedding_shop.connections, IngestOptions())
    assert plan.entries_by_reason == {"changed": 1}
    assert ingest(embedding_shop.connections, IngestOptions()).tagged == 1
    forced = ingest(embedding_shop.connections, IngestOptions(force=True))
    assert (forced.entries, forced.failed) == (10, 1)
    assert embedding_shop.query(TAGS) == [(0,)]


def test_the_next_run_after_a_first_classifier_tags_without_embedding_again(
    embedding_shop: Shop, tiny_models: TinyModels
) -> None:
    ingest(embedding_shop.connections, IngestOptions())
    vectors = embedding_shop.query(VECTORS)
    make_champion(embedding_shop.connections, tiny_models.classifier, "classifier")
    assert preview_run(embedding_shop.connections, IngestOptions()).entries_by_reason == {"not_tagged": 9}
    report = ingest(embedding_shop.connections, IngestOptions())
    assert (report.entries, report.tagged, report.reused) == (9, 7, 2)
    assert embedding_shop.query("SELECT count(*) FROM catalog.current_image_tags") == [(9,)]
    assert embedding_shop.query(VECTORS) == vectors
    embedding_shop.assert_codes_are_current()


def test_a_retag_after_a_first_classifier_tags_without_embedding_again(
    embedding_shop: Shop, tiny_models: TinyModels
) -> None:
    ingest(embedding_shop.connections, IngestOptions())
    vectors = embedding_shop.query(VECTORS)
    make_champion(embedding_shop.connections, tiny_models.classifier, "classifier")
    report = retag(embedding_shop.connections)
    # The first classifier went live when it was promoted, so there is nothing to switch.
    assert (report.state, report.entries, report.switched) == ("nothing to do", 9, ())
    assert embedding_shop.query("SELECT count(*) FROM catalog.current_product_tags") == [(6,)]
    assert embedding_shop.query(VECTORS) == vectors
    embedding_shop.assert_codes_are_current()


def test_another_encoder_goes_live_by_a_retag(embedding_shop: Shop, tiny_models: TinyModels) -> None:
    ingest(embedding_shop.connections, IngestOptions())
    before = embedding_shop.query(LIVE_SPACE)
    make_champion(embedding_shop.connections, tiny_models.other_encoder, "encoder")
    report = retag(embedding_shop.connections)
    assert (report.state, [switch.kind for switch in report.switched]) == ("switched", ["encoder"])
    assert embedding_shop.query(LIVE_SPACE) != before
    assert len(embedding_shop.query("SELECT * FROM catalog.similar_products('p0000', 20)")) == 5
    assert ingest(embedding_shop.connections, IngestOptions()).entries == 0


def test_a_classifier_alone_tags_nothing(shop: Shop, tiny_models: TinyModels) -> None:
    make_champion(shop.connections, tiny_models.classifier, "classifier")
    with pytest.raises(PermanentError, match=r"no encoder was promoted yet.*catalog adopt encoder"):
        ingest(shop.connections, IngestOptions())
    assert retag(shop.connections).state == "nothing to do"
