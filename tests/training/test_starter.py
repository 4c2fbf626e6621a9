from dataclasses import replace
from pathlib import Path

import pytest

from jobs.database.model_versions import read_champion
from jobs.errors import PermanentError
from jobs.local.sample_catalog.garments import CATEGORIES
from jobs.local.sample_catalog.render import SampleCatalogSpec, render_sample_catalog
from jobs.models.registry import fetch_checkpoint
from jobs.training.starter import (
    BLANK_TRAINING,
    StarterBases,
    StarterTraining,
    promote_checkpoint,
    resolve_bases,
    train_starter,
    write_blank_bases,
)
from tests.shop import Shop, TinyModels

PROMOTIONS = "SELECT kind, model_version_id, replaced_version_id FROM catalog.promotions ORDER BY promotion_id"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = SampleCatalogSpec(labelled_products=30, unlabelled_products=0, duplicates=0)
    return render_sample_catalog(tmp_path_factory.mktemp("sample"), spec, processes=1).labelled_folder


def shorten(training: StarterTraining) -> StarterTraining:
    """One epoch of each: enough to see that all parts fit together."""
    classifier, encoder = training.classifier, training.encoder
    return StarterTraining(
        replace(classifier, settings=replace(classifier.settings, epochs=1)),
        replace(encoder, settings=replace(encoder.settings, epochs=1)),
    )


def test_both_models_are_trained_registered_and_promoted(tagging_shop: Shop, labelled: Path, tmp_path: Path) -> None:
    before = tagging_shop.query(PROMOTIONS)
    bases = write_blank_bases(tmp_path / "bases", labelled)
    report = train_starter(tagging_shop.connections, labelled, bases, shorten(BLANK_TRAINING))
    assert tagging_shop.query(PROMOTIONS) == [
        *before,
        ("classifier", report.classifier_version_id, before[0][1]),
        ("encoder", report.encoder_version_id, before[1][1]),
    ]
    assert report.classifier_metrics["test_photos"] == report.encoder_metrics["test_photos"] > 0

    store = tagging_shop.connections.store
    with tagging_shop.connections.engine.connect() as connection:
        classifier, encoder = (read_champion(connection, kind) for kind in ("classifier", "encoder"))
    assert classifier is not None
    assert classifier.categories == tuple(sorted(category.name for category in CATEGORIES))
    assert encoder is not None
    assert encoder.vector_dimensions == 128
    for version in (classifier, encoder):
        assert (fetch_checkpoint(store, version, tmp_path / "cache") / "model.safetensors").is_file()


def test_the_champion_is_not_promoted_again(shop: Shop, tiny_models: TinyModels) -> None:
    first = promote_checkpoint(shop.connections, tiny_models.encoder, "encoder", {})
    assert promote_checkpoint(shop.connections, tiny_models.encoder, "encoder", {}) == first
    second = promote_checkpoint(shop.connections, tiny_models.other_encoder, "encoder", {})
    promote_checkpoint(shop.connections, tiny_models.encoder, "encoder", {})
    assert shop.query(PROMOTIONS) == [
        ("encoder", first.model_version_id, None),
        ("encoder", second.model_version_id, first.model_version_id),
        ("encoder", first.model_version_id, second.model_version_id),
    ]


def test_a_fault_in_training_leaves_the_champions(tagging_shop: Shop, labelled: Path, tiny_models: TinyModels) -> None:
    before = tagging_shop.query(PROMOTIONS)
    wrong = StarterBases(tiny_models.classifier, encoder=tiny_models.classifier)
    with pytest.raises(PermanentError, match="no image and text features"):
        train_starter(tagging_shop.connections, labelled, wrong, shorten(BLANK_TRAINING))
    assert tagging_shop.query(PROMOTIONS) == before


def test_each_base_is_named_by_its_own_setting(tiny_models: TinyModels, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="CATALOG_CLASSIFIER_BASE"):
        resolve_bases("/no/such", str(tiny_models.encoder))
    with pytest.raises(PermanentError, match="CATALOG_ENCODER_BASE"):
        resolve_bases(str(tiny_models.classifier), "/no/such")
