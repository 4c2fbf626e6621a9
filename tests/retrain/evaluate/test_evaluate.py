import io
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fixtures.candidates import (
    LabeledSet,
    label_image,
    make_colored_image,
    make_labeled_set,
    register_candidate,
    serve_here,
    store_labeled_set,
    write_reference,
)
from fixtures.champions import make_champion
from fixtures.recorded_progress import record_progress
from fixtures.shop import Shop, TinyModels
from jobs.connections import Connections
from jobs.database.drift_references import read_drift_reference
from jobs.database.evaluations import read_latest_evaluation
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retrain.evaluate.evaluate import check_data, evaluate_candidate
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PREDICTIONS_FILE,
    ArtifactCheck,
    DataCheck,
    EvaluationMetrics,
    decode_flips,
)
from jobs.retrain.snapshot.snapshot_file import Snapshot, make_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.storage.locations import S3Uri

RUN = "run-1"
SMALL_SET = make_labeled_set(train=3, validation=1, test=2)


def read_metrics(connections: Connections, kind: str) -> EvaluationMetrics:
    with connections.engine.connect() as connection:
        evaluation = read_latest_evaluation(connection, RUN, kind)  # type: ignore[arg-type]
    assert evaluation is not None
    return EvaluationMetrics.from_record(evaluation.metrics)


def test_evaluates_classifier_and_champion(
    tagging_shop: Shop, labeled: LabeledSet, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(6)
    ingest(connections, IngestOptions())
    store_labeled_set(connections, labeled)
    candidate = register_candidate(connections, trained, "classifier", labeled.snapshot, RUN)
    recorded = record_progress(monkeypatch, "jobs.retrain.evaluate.evaluate")
    report = evaluate_candidate(connections, RUN, "classifier")
    assert recorded.tasks == ["classifier.evaluate"]
    # Candidate and champion each score 32 test images.
    assert [one.done for one in recorded.of("scoring images")].count(32) >= 2
    assert recorded.of("checking images for leaks")[-1].total == 64
    assert recorded.of("reading images of the catalog")[-1].done == 6
    assert recorded.of("measuring how the artifact is served")
    assert report.candidate_version_id == candidate.model_version_id
    assert report.champion_version_id is not None
    assert report.error is None
    metrics = read_metrics(connections, "classifier")
    assert metrics.data is not None
    assert (metrics.data.test_images, metrics.data.shared_contents) == (32, 0)
    assert metrics.artifact is not None
    assert metrics.artifact.largest_difference == pytest.approx(0, abs=1e-5)
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


def test_evaluates_encoder_and_champion(
    stocked_shop: Shop,
    labeled: LabeledSet,
    tiny_models: TinyModels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.retrain.evaluate.evaluate.measure_serving", serve_here)
    connections = stocked_shop.connections
    make_champion(connections, tiny_models.other_encoder, "encoder")
    folder = shutil.copytree(tiny_models.encoder, tmp_path / "encoder")
    write_reference(folder, "encoder", labeled)
    silent = make_snapshot(
        [replace(row, full_text="") if row.category == "hat" else row for row in labeled.snapshot.rows]
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


def test_reports_a_modified_artifact(stocked_shop: Shop, labeled: LabeledSet, trained: Path) -> None:
    connections = stocked_shop.connections
    candidate = register_candidate(connections, trained, "classifier", labeled.snapshot, RUN)
    weights = S3Uri.parse(candidate.artifact_uri) / "model.safetensors"
    connections.store.write(weights, connections.store.read(weights)[:-1000])
    report = evaluate_candidate(connections, RUN, "classifier")
    assert "do not match the registered hash" in str(report.error)
    metrics = read_metrics(connections, "classifier")
    assert metrics.artifact == ArtifactCheck(False, False, False, None, report.error)
    assert metrics.data is not None
    assert (metrics.serving, metrics.classifier, metrics.blast_radius) == (None, None, None)
    again = evaluate_candidate(connections, RUN, "classifier")
    assert again.evaluation_id > report.evaluation_id
    assert again.artifact_uri != report.artifact_uri, "the page of the first evaluation must not change"


def test_fails_if_the_run_trained_no_model_of_this_kind(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="has no trained encoder"):
        evaluate_candidate(shop.connections, RUN, "encoder")


def check(shop: Shop, snapshot: Snapshot, tmp_path: Path) -> DataCheck:
    store_labeled_set(shop.connections, SMALL_SET)
    images = SnapshotImages(shop.connections.store, shop.connections.artifacts)
    return check_data(snapshot, datetime.now(UTC) - timedelta(hours=36), images)


def test_checks_a_snapshot_without_leaks(shop: Shop, tmp_path: Path) -> None:
    data = check(shop, SMALL_SET.snapshot, tmp_path)
    assert data == DataCheck(12, 4, 8, 2, 0, 0, 0, data.age_days)
    assert data.age_days == pytest.approx(1.5, abs=0.01)


def test_counts_test_images_that_are_also_in_train(shop: Shop, tmp_path: Path) -> None:
    content = make_colored_image("hat", 4)
    row = label_image(content, "hat", "another product", "train")
    assert row.content_hash in {row.content_hash for row in SMALL_SET.snapshot.part("test")}
    leaking = check(shop, make_snapshot([*SMALL_SET.snapshot.rows, row]), tmp_path)
    assert (leaking.shared_contents, leaking.shared_groups, leaking.shared_near_duplicates) == (1, 0, 1)


def test_category_without_test_images_counts_as_zero(shop: Shop, tmp_path: Path) -> None:
    rows = [row for row in SMALL_SET.snapshot.rows if row.category != "hat" or row.split != "test"]
    assert check(shop, make_snapshot(rows), tmp_path).fewest_test_images_of_a_category == 0
