"""Test the measurement of drift."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.special import rel_entr
from sqlalchemy import text

from fixtures.catalog_rows import label_image
from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels, make_image
from jobs.database.drift_references import (
    DriftReference,
    count_catalog_predictions,
    read_drift_reference,
    upsert_drift_reference,
)
from jobs.errors import PermanentError
from jobs.ingest.drift import compare_counts, compute_psi
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.ingest.report import RunReport, report_run
from jobs.retag.retag import retag
from jobs.settings import RunSettings

DEFAULTS = RunSettings()
REFERENCE = DriftReference({"dress": 500, "hat": 300, "shoe": 200}, [0, 0, 0, 0, 10, 40, 100, 150, 300, 400])


def test_the_index_is_jeffreys_divergence_of_the_smoothed_shares() -> None:
    expected, actual = [50, 30, 20, 0], [10, 60, 25, 5]
    e, a = ((np.array(counts) + 0.5) / (sum(counts) + 2) for counts in (expected, actual))
    assert compute_psi(expected, actual) == pytest.approx(np.sum(rel_entr(a, e) + rel_entr(e, a)))
    assert compute_psi(expected, expected) == 0
    assert compute_psi([100, 0], [0, 100]) < float("inf")


def test_the_same_distribution_is_no_drift_for_any_number_of_images() -> None:
    for factor in (1, 20):
        seen = DriftReference(
            {name: count * factor for name, count in REFERENCE.category_counts.items()},
            [count * factor for count in REFERENCE.confidence_counts],
        )
        report = compare_counts(REFERENCE, seen, DEFAULTS)
        assert not report.is_flagged
        assert report.category_psi == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("categories", "confidences"),
    [
        ({"dress": 100, "hat": 100, "shoe": 800}, REFERENCE.confidence_counts),
        ({"dress": 300, "hat": 200, "shoe": 100, "bag": 400}, REFERENCE.confidence_counts),
        (REFERENCE.category_counts, [0, 10, 90, 200, 300, 200, 100, 50, 30, 20]),
    ],
    ids=["another mix", "a new category", "less sure"],
)
def test_a_change_is_flagged(categories: dict[str, int], confidences: list[int]) -> None:
    report = compare_counts(REFERENCE, DriftReference(categories, confidences), DEFAULTS)
    assert report.is_flagged
    assert "differ from the reference" in report.sentence
    assert "(limit 0.25)" in report.sentence
    assert not compare_counts(REFERENCE, DriftReference(categories, confidences), RunSettings(drift_limit=5)).is_flagged


def test_too_few_images_give_no_index() -> None:
    seen = DriftReference({"shoe": 199}, [199, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    report = compare_counts(REFERENCE, seen, DEFAULTS)
    assert (report.images, report.category_psi, report.confidence_psi, report.is_flagged) == (199, None, None, False)
    assert "too few to measure drift: at least 200 are needed" in report.sentence


@pytest.mark.parametrize("categories", [4, 17, 60])
def test_samples_of_one_distribution_are_hardly_ever_flagged(categories: int) -> None:
    """Draw a reference of at least 341 images and a run of the minimum size from the same distribution, 500 times."""
    random = np.random.default_rng(7)
    shares, confidence = random.dirichlet(np.full(categories, 2)), random.dirichlet(np.arange(1, 11))
    names = [str(number) for number in range(categories)]

    def draw(images: int) -> DriftReference:
        counts = random.multinomial(images, shares).tolist()
        return DriftReference(dict(zip(names, counts, strict=True)), random.multinomial(images, confidence).tolist())

    flagged = 0
    for _ in range(500):
        report = compare_counts(draw(max(341, 10 * categories)), draw(max(200, 10 * categories)), DEFAULTS)
        assert report.category_psi is not None
        flagged += report.is_flagged
    assert flagged <= 2


def read_live_classifier(shop: Shop) -> int:
    ((version,),) = shop.query("SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'")
    return int(version)


def set_reference(shop: Shop, reference: DriftReference) -> None:
    with shop.connections.engine.begin() as connection:
        upsert_drift_reference(connection, read_live_classifier(shop), reference, "catalog")


def report_again(shop: Shop, run_id: str) -> RunReport:
    return report_run(shop.with_settings(drift_min_images=10, failed_share_limit=1.0), run_id)


def test_the_report_of_a_run_contains_drift(tagging_shop: Shop) -> None:
    easy = tagging_shop.with_settings(drift_min_images=10)
    tagging_shop.put_images(40)
    report = ingest(easy, IngestOptions())
    assert (report.drift, report.requests_retraining) == (None, False), "there is no reference"
    with tagging_shop.connections.engine.begin() as connection:
        seen = count_catalog_predictions(connection, read_live_classifier(tagging_shop))
    # Untrained models give every image the same tag.
    set_reference(tagging_shop, seen)
    tagging_shop.put_images(40, seed=1)
    report = ingest(easy, IngestOptions())
    assert report.drift is not None
    assert (report.drift.images, report.requests_retraining) == (40, False)

    set_reference(tagging_shop, replace(seen, category_counts={"another": 1000}))
    tagging_shop.put_images(40, seed=2)
    report = ingest(easy, IngestOptions())
    assert report.requests_retraining
    ((stored,),) = tagging_shop.query("SELECT report FROM catalog.tagging_runs ORDER BY started_at DESC LIMIT 1")
    assert stored == json.loads(json.dumps(asdict(report)))


def test_after_the_first_run_the_catalog_is_the_reference(tagging_shop: Shop) -> None:
    easy = tagging_shop.with_settings(drift_min_images=10)
    with tagging_shop.connections.engine.begin() as connection:
        other_mix = replace(REFERENCE, category_counts={"another": 1000})
        upsert_drift_reference(connection, read_live_classifier(tagging_shop), other_mix, "test")
    measured_on = "SELECT measured_on FROM catalog.drift_references"
    tagging_shop.put_images(6)
    assert not ingest(easy, IngestOptions()).requests_retraining
    assert tagging_shop.query(measured_on) == [("test",)], "too few to tell"
    tagging_shop.put_images(40, seed=1)
    run = ingest(easy, IngestOptions())
    assert run.requests_retraining
    assert tagging_shop.query(measured_on) == [("catalog",)]
    again = report_again(tagging_shop, run.run_id)
    assert (again.drift, again.requests_retraining) == (run.drift, True)
    tagging_shop.put_images(40, seed=2)
    assert not ingest(easy, IngestOptions()).requests_retraining


def test_lasting_drift_requests_retraining_once_a_week(tagging_shop: Shop) -> None:
    easy = tagging_shop.with_settings(drift_min_images=10)
    set_reference(tagging_shop, replace(REFERENCE, category_counts={"another": 1000}))
    asked = []
    for night in range(3):
        tagging_shop.put_images(20, seed=night)
        report = ingest(easy, IngestOptions())
        assert report.drift is not None
        assert report.drift.is_flagged
        asked.append(report.requests_retraining)
        if night == 1:
            with tagging_shop.connections.engine.begin() as connection:
                connection.execute(text("UPDATE catalog.tagging_runs SET started_at = started_at - interval '8 days'"))
    assert asked == [True, False, True]
    again = report_again(tagging_shop, report.run_id)
    assert again.requests_retraining, "a report that is repeated says the same"


def test_a_new_classifier_may_request_retraining_immediately(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    easy = tagging_shop.with_settings(drift_min_images=10)
    for night, classifier in enumerate((None, tiny_models.other_classifier)):
        if classifier is not None:
            make_champion(tagging_shop.connections, classifier, "classifier")
            retag(tagging_shop.connections)
        set_reference(tagging_shop, replace(REFERENCE, category_counts={"another": 1000}))
        tagging_shop.put_images(20, seed=night)
        assert ingest(easy, IngestOptions()).requests_retraining


def test_a_failed_run_does_not_request_retraining(tagging_shop: Shop) -> None:
    easy = tagging_shop.with_settings(drift_min_images=10, failed_share_limit=0.01)
    set_reference(tagging_shop, replace(REFERENCE, category_counts={"another": 1000}))
    tagging_shop.put_images(20)
    tagging_shop.put("broken.jpg", b"no image")
    with pytest.raises(PermanentError, match="1 of 21 images failed"):
        ingest(easy, IngestOptions())
    ((stored,),) = tagging_shop.query("SELECT report FROM catalog.tagging_runs")
    assert stored["drift"]["is_flagged"]
    assert not stored["requests_retraining"]
    tagging_shop.put_images(20, seed=1)
    assert ingest(easy, IngestOptions()).requests_retraining


def test_only_new_predictions_of_the_run_count(tagging_shop: Shop) -> None:
    set_reference(tagging_shop, REFERENCE)
    keys = tagging_shop.put_images(12)
    ingest(tagging_shop.connections, IngestOptions())
    for number in range(5):
        tagging_shop.put(f"copy{number}.jpg", make_image(1))
    tagging_shop.put_images(3, seed=1)
    ((image_id,),) = tagging_shop.query("SELECT image_id FROM catalog.images WHERE object_key = :key", key=keys[0])
    with tagging_shop.connections.engine.begin() as connection:
        label_image(connection, image_id, "hat")
    report = ingest(tagging_shop.connections, IngestOptions())
    assert report.drift is not None
    assert (report.tagged, report.reused, report.drift.images) == (3, 5, 3)


def test_a_switch_makes_the_catalog_the_reference(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    tagging_shop.put_images(20)
    ingest(tagging_shop.connections, IngestOptions())
    new = make_champion(tagging_shop.connections, tiny_models.other_classifier, "classifier")
    with tagging_shop.connections.engine.begin() as connection:
        upsert_drift_reference(connection, new.model_version_id, REFERENCE, "test")
    retag(tagging_shop.connections)
    with tagging_shop.connections.engine.connect() as connection:
        reference = read_drift_reference(connection, new.model_version_id)
    assert reference is not None
    rows = tagging_shop.query("SELECT category, confidence FROM catalog.current_image_tags")
    assert reference.category_counts == {name: sum(name == row[0] for row in rows) for name, _ in rows}
    bins = np.histogram([confidence for _, confidence in rows], bins=10, range=(0, 1))[0]
    assert reference.confidence_counts == bins.tolist()
    assert tagging_shop.query("SELECT measured_on FROM catalog.drift_references") == [("catalog",)]
