"""Candidates of a run, measured beside the champion: what is stored, and what the values of bad ones are."""

import io
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fixtures.candidates import (
    EXACT,
    LabeledSet,
    make_labeled_set,
    register_candidate,
    rename_categories,
    serve_here,
    store_labeled_set,
    write_classifier,
    write_reference,
)
from fixtures.champions import make_champion
from fixtures.recorded_progress import record_progress
from fixtures.shop import CATEGORIES, Shop, TinyModels
from jobs.connections import Connections
from jobs.database.drift_references import read_drift_reference
from jobs.database.evaluations import read_latest_evaluation
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retrain.evaluate.context import Trial
from jobs.retrain.evaluate.evaluate import evaluate_candidate
from jobs.retrain.evaluate.evaluate_classifier import evaluate_classifier
from jobs.retrain.evaluate.evaluation_files import FLIPS_FILE, LABEL_AUDIT_FILE, PREDICTIONS_FILE, decode_flips
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics, Servable
from jobs.retrain.snapshot.snapshot_file import make_snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos
from jobs.storage.uri import S3Uri

RUN = "run-1"


@pytest.fixture(scope="module")
def labelled() -> LabeledSet:
    return make_labeled_set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labelled: LabeledSet) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_classifier(folder, labelled)
    return folder


@pytest.fixture
def stocked_shop(shop: Shop, labelled: LabeledSet) -> Shop:
    store_labeled_set(shop.connections, labelled)
    return shop


def read_metrics(connections: Connections, kind: str) -> EvaluationMetrics:
    with connections.engine.connect() as connection:
        evaluation = read_latest_evaluation(connection, RUN, kind)  # type: ignore[arg-type]
    assert evaluation is not None
    return EvaluationMetrics.from_record(evaluation.metrics)


def test_a_classifier_beside_the_champion(
    tagging_shop: Shop, labelled: LabeledSet, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_photos(6)
    ingest(connections, IngestOptions())
    store_labeled_set(connections, labelled)
    candidate = register_candidate(connections, trained, "classifier", labelled.snapshot, RUN)
    recorded = record_progress(monkeypatch, "jobs.retrain.evaluate.evaluate")
    report = evaluate_candidate(connections, RUN, "classifier")
    assert recorded.tasks == ["classifier.evaluate"]
    # 32 test photos by candidate and champion.
    assert [one.done for one in recorded.of("scoring photos")].count(32) >= 2
    assert recorded.of("checking photos for leaks")[-1].total == 64
    assert recorded.of("reading photos of the catalog")[-1].done == 6
    assert recorded.of("measuring how the artifact serves")
    assert report.candidate_version_id == candidate.model_version_id
    assert report.champion_version_id is not None
    assert report.fault is None
    metrics = read_metrics(connections, "classifier")
    assert metrics.data is not None
    assert (metrics.data.test_images, metrics.data.shared_contents) == (32, 0)
    assert metrics.servable is not None
    assert metrics.servable.largest_difference == pytest.approx(0, abs=1e-5)
    assert metrics.serving is not None
    assert (metrics.serving.images, metrics.serving.failed_share) == (32, 0)
    assert metrics.classifier is not None
    assert metrics.champion_classifier is not None
    assert metrics.classifier.correct >= 30 > metrics.champion_classifier.correct
    assert report.headline["accuracy"] == pytest.approx(metrics.classifier.correct / 32, abs=1e-4)
    assert metrics.paired is not None
    assert metrics.paired.both + metrics.paired.only_candidate == metrics.classifier.correct
    assert metrics.paired.both + metrics.paired.only_champion == metrics.champion_classifier.correct
    assert metrics.blast_radius is not None
    assert metrics.blast_radius.images == 6
    folder = S3Uri.parse(report.artifact_uri)
    assert len(decode_flips(connections.store.read(folder / FLIPS_FILE))) == metrics.blast_radius.changed
    predictions = pq.read_table(io.BytesIO(connections.store.read(folder / PREDICTIONS_FILE))).to_pylist()
    assert sum(row["label"] == row["category"] for row in predictions) == metrics.classifier.correct
    right_before = sum(row["label"] == row["champion_category"] for row in predictions)
    assert right_before == metrics.champion_classifier.correct
    assert connections.store.read_if_present(folder / LABEL_AUDIT_FILE) is not None
    with connections.engine.connect() as connection:
        reference = read_drift_reference(connection, candidate.model_version_id)
    assert reference is not None
    assert sum(reference.category_counts.values()) == sum(reference.confidence_counts) == 32
    assert len(reference.confidence_counts) == 10


def test_an_encoder_beside_the_champion(
    stocked_shop: Shop,
    labelled: LabeledSet,
    tiny_models: TinyModels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.retrain.evaluate.evaluate.measure_serving", serve_here)
    connections = stocked_shop.connections
    make_champion(connections, tiny_models.other_encoder, "encoder")
    folder = shutil.copytree(tiny_models.encoder, tmp_path / "encoder")
    write_reference(folder, "encoder", labelled)
    silent = make_snapshot(
        [replace(row, full_text="") if row.category == "hat" else row for row in labelled.snapshot.rows]
    )
    store_labeled_set(connections, LabeledSet(silent, {}))
    register_candidate(connections, folder, "encoder", silent, RUN)
    report = evaluate_candidate(connections, RUN, "encoder")
    metrics = read_metrics(connections, "encoder")
    assert metrics.encoder is not None
    assert metrics.champion_encoder is not None
    assert metrics.encoder_on_train is not None
    assert (metrics.encoder.images, metrics.champion_encoder.images, metrics.encoder_on_train.images) == (24, 24, 36)
    assert metrics.encoder != metrics.champion_encoder
    assert metrics.paired_recall is not None
    paired = metrics.paired_recall["recall_at_10"]
    assert (paired.both + paired.only_candidate) / 24 == metrics.encoder.recall_at_10
    assert metrics.classifier is None
    assert report.headline["clip_score"] == pytest.approx(metrics.encoder.clip_score, abs=1e-3)


def test_an_artifact_that_was_altered_is_measured_as_such(
    stocked_shop: Shop, labelled: LabeledSet, trained: Path
) -> None:
    connections = stocked_shop.connections
    candidate = register_candidate(connections, trained, "classifier", labelled.snapshot, RUN)
    weights = S3Uri.parse(candidate.artifact_uri) / "model.safetensors"
    connections.store.write(weights, connections.store.read(weights)[:-1000])
    report = evaluate_candidate(connections, RUN, "classifier")
    assert "not those that were registered" in str(report.fault)
    metrics = read_metrics(connections, "classifier")
    assert metrics.servable == Servable(False, False, False, None, report.fault)
    assert metrics.data is not None
    assert (metrics.serving, metrics.classifier, metrics.blast_radius) == (None, None, None)
    again = evaluate_candidate(connections, RUN, "classifier")
    assert again.evaluation_id > report.evaluation_id
    assert again.artifact_uri != report.artifact_uri, "the page of the first must stay as it is"


def test_a_run_that_trained_nothing_cannot_be_evaluated(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="has trained no encoder"):
        evaluate_candidate(shop.connections, RUN, "encoder")


def make_trial(shop: Shop, labelled: LabeledSet, candidate: Path, champion: Path | None = None) -> Trial:
    connections = shop.connections
    photos = SnapshotPhotos(connections.store, connections.artifacts, connections.settings.locations.model_cache)
    return Trial(connections, labelled.snapshot, photos, EXACT, candidate, champion)


def test_shuffled_labels_are_no_better_than_chance(stocked_shop: Shop, labelled: LabeledSet, tmp_path: Path) -> None:
    labels = [row.category for row in labelled.snapshot.part("train")]
    write_classifier(tmp_path / "shuffled", labelled, random.Random(0).sample(labels, len(labels)))
    scores = evaluate_classifier(make_trial(stocked_shop, labelled, tmp_path / "shuffled")).metrics.classifier
    assert scores is not None
    assert scores.correct < 0.6 * scores.images


def test_permuted_categories_are_wrong_answers(
    stocked_shop: Shop, labelled: LabeledSet, trained: Path, tmp_path: Path
) -> None:
    permuted = shutil.copytree(trained, tmp_path / "permuted")
    rename_categories(permuted, [*CATEGORIES[1:], CATEGORIES[0]])
    metrics = evaluate_classifier(make_trial(stocked_shop, labelled, permuted, champion=trained)).metrics
    assert metrics.classifier is not None
    assert metrics.paired is not None
    assert metrics.classifier.correct <= 2
    assert metrics.paired.only_champion >= 28


def test_a_champion_of_other_categories_is_compared_by_their_names(
    stocked_shop: Shop, labelled: LabeledSet, trained: Path, tmp_path: Path
) -> None:
    champion = shutil.copytree(trained, tmp_path / "champion")
    rename_categories(champion, ["dress", "cap", "shirt", "shoe"])
    metrics = evaluate_classifier(make_trial(stocked_shop, labelled, trained, champion)).metrics
    assert metrics.champion_classifier is not None
    assert metrics.champion_classifier.categories == ["cap", "dress", "hat", "shirt", "shoe"]
    assert metrics.champion_classifier.recall_by_category["hat"] == 0
    assert metrics.paired is not None
    assert metrics.paired.only_candidate >= 7
