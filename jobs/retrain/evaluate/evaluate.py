"""Stage 3 of retraining: measure a candidate, beside the champion, on the test images of its snapshot."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.connections import Connections
from jobs.database.drift_references import upsert_drift_reference
from jobs.database.evaluations import NewEvaluation, insert_evaluation, read_training
from jobs.database.examples import RegisteredSnapshot, read_snapshot
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    find_build_version,
    read_champion,
    read_model_version,
)
from jobs.errors import NotFoundError
from jobs.models.device import choose_device
from jobs.models.registry import fetch_checkpoint
from jobs.progress import Progress, open_progress
from jobs.retrain.evaluate.context import Measured, Trial
from jobs.retrain.evaluate.data_check import check_data
from jobs.retrain.evaluate.evaluate_classifier import evaluate_classifier
from jobs.retrain.evaluate.evaluate_encoder import evaluate_encoder
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics, Serving
from jobs.retrain.evaluate.fidelity import read_served
from jobs.retrain.evaluate.servable import inspect_artifact
from jobs.retrain.evaluate.serving import MAX_PHOTOS, measure_serving
from jobs.retrain.snapshot.snapshot_file import load_snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos
from jobs.scratch import open_scratch
from jobs.storage.layout import evaluation_location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, in few numbers; the whole of it is in ``catalog.evaluations``.

    ``fault`` says what is wrong with the candidate's artifact, whose other values are then missing.
    """

    evaluation_id: int
    kind: ModelKind
    candidate_version_id: int
    champion_version_id: int | None
    headline: dict[str, float | None]
    fault: str | None
    artifact_uri: str


@dataclass(frozen=True)
class _Contest:
    """Who is on trial against whom, and on what."""

    run_id: str
    kind: ModelKind
    candidate: ModelVersion
    champion: ModelVersion | None
    snapshot: RegisteredSnapshot


def evaluate_candidate(connections: Connections, run_id: str, kind: ModelKind) -> EvaluationReport:
    """Measure what a run has trained, store the values and the files beside them; asked again, it measures again.

    A fault of the candidate is part of what is measured, and no error.

    Raises:
        NotFoundError: the run has trained nothing of this kind, its snapshot or the champion cannot be read.
        RetryableError: bucket or database away.
    """
    contest = _read_contest(connections, run_id, kind)
    with (
        open_scratch() as scratch,
        open_progress(connections.engine, run_id, f"{kind}.evaluate") as progress,
    ):
        measured = _measure(connections, contest, scratch, progress)
    location = evaluation_location(connections.artifacts, run_id, kind, datetime.now(UTC))
    for name, content in measured.files.items():
        connections.store.write(location / name, content)
    evaluation = NewEvaluation(
        run_id=run_id,
        kind=kind,
        snapshot_id=contest.snapshot.snapshot_id,
        candidate_version_id=contest.candidate.model_version_id,
        champion_version_id=contest.champion.model_version_id if contest.champion else None,
        metrics=measured.metrics.as_record(),
        artifact_uri=str(location),
    )
    with connections.engine.begin() as connection:
        evaluation_id = insert_evaluation(connection, evaluation)
        if measured.drift_reference is not None:
            upsert_drift_reference(connection, evaluation.candidate_version_id, measured.drift_reference, "test")
    return EvaluationReport(
        evaluation_id=evaluation_id,
        kind=kind,
        candidate_version_id=evaluation.candidate_version_id,
        champion_version_id=evaluation.champion_version_id,
        headline=summarise(measured.metrics),
        fault=measured.metrics.servable.fault if measured.metrics.servable else None,
        artifact_uri=evaluation.artifact_uri,
    )


def _read_contest(connections: Connections, run_id: str, kind: ModelKind) -> _Contest:
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise NotFoundError(f"run {run_id} has trained no {kind}: run `python -m jobs train {kind}` first")
        snapshot = read_snapshot(connection, training.snapshot_id)
        # A foreign key holds it.
        assert snapshot is not None
        built = find_build_version(connection, training.model_version_id)
        candidate = read_model_version(connection, built or training.model_version_id)
        return _Contest(run_id, kind, candidate, read_champion(connection, kind), snapshot)


def _measure(connections: Connections, contest: _Contest, scratch: Path, progress: Progress) -> Measured:
    settings, store = connections.settings, connections.store
    snapshot = load_snapshot(store, connections.artifacts, contest.snapshot.snapshot_id)
    photos = SnapshotPhotos(store, connections.artifacts, settings.locations.model_cache, progress)
    log.info("reading %s %d back from the bucket", contest.kind, contest.candidate.model_version_id)
    progress.report("reading the artifact back from the bucket")
    exact = choose_device(settings.compute.device, "fp32")
    inspection = inspect_artifact(store, contest.candidate, snapshot, photos, exact, scratch / "artifact")
    log.info("checking %d photos for leaks", len(snapshot.rows))
    basics = EvaluationMetrics(
        data=check_data(snapshot, contest.snapshot.created_at, photos), servable=inspection.servable
    )
    if inspection.folder is None:
        log.error("the candidate cannot be measured: %s", inspection.servable.fault)
        return Measured(basics)
    champion = fetch_checkpoint(store, contest.champion, settings.locations.model_cache) if contest.champion else None
    device = choose_device(settings.compute.device, settings.compute.precision)
    trial = Trial(connections, snapshot, photos, device, inspection.folder, champion, progress)
    log.info("serving the artifact in a process of its own")
    serving = _serve(trial, contest.kind, scratch)
    log.info("asking for %d test images", len(snapshot.part("test")))
    measured = evaluate_classifier(trial) if contest.kind == "classifier" else evaluate_encoder(trial)
    metrics = replace(
        measured.metrics,
        data=basics.data,
        servable=basics.servable,
        served=read_served(inspection.folder),
        serving=serving,
    )
    return replace(measured, metrics=metrics)


def _serve(trial: Trial, kind: ModelKind, scratch: Path) -> Serving:
    folder = scratch / "photos"
    folder.mkdir()
    photos = [trial.photos.read(row.content_hash) for row in trial.snapshot.part("test")[:MAX_PHOTOS]]
    return measure_serving(trial.candidate, kind, photos, trial.connections.settings, folder, trial.progress)


def summarise(metrics: EvaluationMetrics) -> dict[str, float | None]:
    """The numbers that people ask for first; what was not measured is left out."""
    headline: dict[str, float | None] = {}
    if metrics.classifier:
        headline["accuracy"] = metrics.classifier.correct / metrics.classifier.images
        headline["top_3_accuracy"] = metrics.classifier.top_3_correct / metrics.classifier.images
        headline["expected_calibration_error"] = metrics.classifier.expected_calibration_error
    if metrics.champion_classifier:
        headline["champion_accuracy"] = metrics.champion_classifier.correct / metrics.champion_classifier.images
    if metrics.blast_radius:
        headline["changed_share"] = metrics.blast_radius.changed / metrics.blast_radius.images
    if metrics.encoder:
        headline["clip_score"] = metrics.encoder.clip_score
        headline["recall_at_5"] = metrics.encoder.recall_at_5
    if metrics.champion_encoder:
        headline["champion_recall_at_5"] = metrics.champion_encoder.recall_at_5
    if metrics.serving:
        headline["mean_latency_milliseconds"] = metrics.serving.mean_latency_milliseconds
        headline["images_per_second"] = metrics.serving.images_per_second
    return {name: value if value is None else round(value, 4) for name, value in headline.items()}
