import base64
import io
from dataclasses import replace

import pytest
from PIL import Image

from fixtures.candidates import EXACT
from fixtures.catalog_rows import delete_images, label_image
from fixtures.shop import Shop, TinyModels
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retrain.evaluate.blast_radius import measure_blast_radius
from jobs.retrain.evaluate.evaluation_record import MAX_THUMBNAILS, BlastRadius, decode_flips, encode_list
from jobs.retrain.evaluate.served_model import ServedModel, load_served_model

IMAGES = 50


@pytest.fixture
def tagged_shop(tagging_shop: Shop) -> Shop:
    tagging_shop.put_images(IMAGES)
    ingest(tagging_shop.with_settings(precision="fp32"), IngestOptions())
    return tagging_shop


@pytest.fixture
def candidate(tiny_models: TinyModels) -> ServedModel:
    """Return the champion with shifted category names, so it disagrees on every image."""
    champion = load_served_model(tiny_models.classifier, "classifier", EXACT)
    names = champion.categories
    return replace(champion, categories=(*names[1:], names[0]))


def test_champion_changes_nothing(tagged_shop: Shop, tiny_models: TinyModels) -> None:
    champion = load_served_model(tiny_models.classifier, "classifier", EXACT)
    change = measure_blast_radius(tagged_shop.connections, champion)
    assert change is not None
    assert (change.blast_radius, change.flips) == (BlastRadius(IMAGES, 0), ())


def test_ranks_flips_and_adds_thumbnails(tagged_shop: Shop, candidate: ServedModel) -> None:
    change = measure_blast_radius(tagged_shop.connections, candidate)
    assert change is not None
    assert change.blast_radius == BlastRadius(IMAGES, IMAGES)
    rows = tagged_shop.query("SELECT image_id, category, confidence FROM catalog.image_tags")
    tags = {image_id: (category, confidence) for image_id, category, confidence in rows}
    names = dict(zip(candidate.categories, [candidate.categories[-1], *candidate.categories], strict=False))
    assert all((flip.old_category, flip.old_confidence) == tags[flip.image_id] for flip in change.flips)
    assert all(names[flip.new_category] == flip.old_category for flip in change.flips)
    confidences = [flip.new_confidence for flip in change.flips]
    assert confidences == sorted(confidences, reverse=True)
    assert [flip.thumbnail is not None for flip in change.flips] == [True] * MAX_THUMBNAILS + [False] * 10
    thumbnail = Image.open(io.BytesIO(base64.b64decode(change.flips[0].thumbnail or "")))
    assert (thumbnail.format, max(thumbnail.size)) == ("JPEG", 120)
    assert decode_flips(encode_list(change.flips)) == list(change.flips)


def test_ignores_labeled_deleted_and_replaced_images(tagged_shop: Shop, candidate: ServedModel) -> None:
    rows = tagged_shop.query("SELECT image_id, object_key FROM catalog.images ORDER BY image_id")
    with tagged_shop.connections.engine.begin() as connection:
        label_image(connection, rows[0][0], "dress")
        delete_images(connection, [rows[1][0]])
    tagged_shop.remove(rows[2][1])
    tagged_shop.put(rows[3][1], b"replaced since")
    change = measure_blast_radius(tagged_shop.connections, candidate)
    assert change is not None
    assert change.blast_radius == BlastRadius(IMAGES - 4, IMAGES - 4)
    assert not {flip.image_id for flip in change.flips} & {row[0] for row in rows[:4]}


def test_sample_is_deterministic(tagged_shop: Shop, candidate: ServedModel) -> None:
    first, second = (measure_blast_radius(tagged_shop.connections, candidate, images=5) for _ in range(2))
    assert first is not None
    assert first.blast_radius == BlastRadius(5, 5)
    assert first == second


def test_empty_catalog_has_no_blast_radius(tagging_shop: Shop, candidate: ServedModel) -> None:
    assert measure_blast_radius(tagging_shop.connections, candidate) is None
