"""Stage 4 of retraining, evaluate: measure a candidate and the champion on the test images of the snapshot."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.connections import Connections
from jobs.cores import count_cores
from jobs.database.drift_references import upsert_drift_reference
from jobs.database.evaluations import NewEvaluation, insert_evaluation, name_trained_runs, read_training
from jobs.database.examples import RegisteredSnapshot, read_snapshot
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    read_champion,
    read_model_version,
)
from jobs.errors import NotFoundError
from jobs.models.builds import ensure_build, fetch_build
from jobs.models.device import choose_device
from jobs.models.registry import fetch_checkpoint
from jobs.progress import Progress, open_progress
from jobs.retrain.evaluate.artifact_check import inspect_artifact
from jobs.retrain.evaluate.compare_models import (
    EvaluationContext,
    EvaluationResult,
    evaluate_classifier,
    evaluate_encoder,
)
from jobs.retrain.evaluate.evaluation_record import DataCheck, EvaluationMetrics, Fidelity, ServedBuild, ServingMetrics
from jobs.retrain.evaluate.served_model import ServedVersion
from jobs.retrain.evaluate.serving import MAX_IMAGES, measure_serving
from jobs.retrain.snapshot.curation import NEAR_DUPLICATE_BITS
from jobs.retrain.snapshot.leaks import fingerprint_images, measure_leaks
from jobs.retrain.snapshot.snapshot_file import Snapshot, load_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.scratch import open_scratch
from jobs.storage.locations import evaluation_location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """Summary of an evaluation. All metrics are in ``catalog.evaluations``.

    ``error`` lists what is wrong with the candidate's artifact. Metrics that need the artifact are then missing.
    """

    evaluation_id: int
    kind: ModelKind
    candidate_version_id: int
    champion_version_id: int | None
    headline: dict[str, float | None]
    error: str | None
    artifact_uri: str


@dataclass(frozen=True)
class _Inputs:
    """The versions and the snapshot of an evaluation."""

    run_id: str
    kind: ModelKind
    candidate: ModelVersion
    champion: ModelVersion | None
    snapshot: RegisteredSnapshot


def evaluate_candidate(connections: Connections, run_id: str, kind: ModelKind) -> EvaluationReport:
    """Evaluate the model that a run trained, and store metrics and files. Each call creates a new evaluation.

    A damaged artifact is a result of the evaluation, not an exception.

    Raises:
        NotFoundError: the run has not trained a model of this kind, or the snapshot or champion cannot be read.
        RetryableError: the bucket or database is unavailable.
    """
    inputs = _read_inputs(connections, run_id, kind)
    with (
        open_scratch() as scratch,
        open_progress(connections.engine, run_id, f"{kind}.evaluate") as progress,
    ):
        result = _measure(connections, inputs, scratch, progress)
    location = evaluation_location(connections.artifacts, run_id, kind, datetime.now(UTC))
    for name, content in result.files.items():
        connections.store.write(location / name, content)
    evaluation = NewEvaluation(
        run_id=run_id,
        kind=kind,
        snapshot_id=inputs.snapshot.snapshot_id,
        candidate_version_id=inputs.candidate.model_version_id,
        champion_version_id=inputs.champion.model_version_id if inputs.champion else None,
        metrics=result.metrics.as_record(),
        artifact_uri=str(location),
    )
    with connections.engine.begin() as connection:
        evaluation_id = insert_evaluation(connection, evaluation)
        if result.drift_reference is not None:
            upsert_drift_reference(connection, evaluation.candidate_version_id, result.drift_reference, "test")
    return EvaluationReport(
        evaluation_id=evaluation_id,
        kind=kind,
        candidate_version_id=evaluation.candidate_version_id,
        champion_version_id=evaluation.champion_version_id,
        headline=summarize(result.metrics),
        error=result.metrics.artifact.error if result.metrics.artifact else None,
        artifact_uri=evaluation.artifact_uri,
    )


def _read_inputs(connections: Connections, run_id: str, kind: ModelKind) -> _Inputs:
    with connections.engine.connect() as connection:
        training = read_training(connection, run_id, kind)
        if training is None:
            raise NotFoundError(
                f"run {run_id!r} has no trained {kind}: run `catalog train {kind} --run {run_id}` first. "
                f"{name_trained_runs(connection, run_id, kind)}"
            )
        snapshot = read_snapshot(connection, training.snapshot_id)
        # Guaranteed by a foreign key.
        assert snapshot is not None
        candidate = read_model_version(connection, training.model_version_id)
        return _Inputs(run_id, kind, candidate, read_champion(connection, kind), snapshot)


def _measure(connections: Connections, inputs: _Inputs, scratch: Path, progress: Progress) -> EvaluationResult:
    settings, store = connections.settings, connections.store
    snapshot = load_snapshot(store, connections.artifacts, inputs.snapshot.snapshot_id)
    images = SnapshotImages(store, connections.artifacts, progress)
    log.info("reading %s %d from the bucket", inputs.kind, inputs.candidate.model_version_id)
    progress.report("reading the artifact from the bucket")
    exact = choose_device(settings.compute.device, "fp32")
    build = ensure_build(connections, inputs.candidate)
    inspection = inspect_artifact(store, inputs.candidate, build, snapshot, images, exact, scratch / "artifact")
    log.info("checking %d images for leaks", len(snapshot.rows))
    data = check_data(snapshot, inputs.snapshot.created_at, images)
    if inspection.served is None:
        log.error("the candidate cannot be evaluated: %s", inspection.check.error)
        return EvaluationResult(EvaluationMetrics(data=data, artifact=inspection.check))
    champion = _fetch(connections, inputs.champion) if inputs.champion else None
    device = choose_device(settings.compute.device, settings.compute.precision)
    context = EvaluationContext(connections, snapshot, images, device, inspection.served, champion, progress)
    log.info("measuring how the artifact is served, in a separate process")
    serving = _measure_serving(context, inputs.kind, scratch)
    log.info("scoring %d test images", len(snapshot.part("test")))
    result = evaluate_classifier(context) if inputs.kind == "classifier" else evaluate_encoder(context)
    metrics = replace(
        result.metrics,
        data=data,
        artifact=inspection.check,
        build=ServedBuild(build.engine, build.precision, Fidelity(**build.fidelity) if build.fidelity else None),
        serving=serving,
    )
    return replace(result, metrics=metrics)


def _fetch(connections: Connections, version: ModelVersion) -> ServedVersion:
    checkpoint = fetch_checkpoint(connections.store, version, connections.settings.locations.model_cache)
    return ServedVersion(checkpoint, fetch_build(connections, version)[1])


def check_data(snapshot: Snapshot, taken_at: datetime, contents: SnapshotImages) -> DataCheck:
    """Measure the size, age and leaks of a snapshot. Leaks are measured on the bytes of the images."""
    images = Counter(row.split for row in snapshot.rows)
    test = snapshot.part("test")
    test_images = Counter(row.category for row in test)
    others = [*snapshot.part("train"), *snapshot.part("validation")]
    threads = 2 * count_cores()
    leaks = measure_leaks(
        fingerprint_images(contents, test, threads), fingerprint_images(contents, others, threads), NEAR_DUPLICATE_BITS
    )
    return DataCheck(
        train_images=images["train"],
        validation_images=images["validation"],
        test_images=images["test"],
        fewest_test_images_of_a_category=min((test_images[category] for category in snapshot.categories), default=0),
        shared_contents=leaks.shared_contents,
        shared_groups=leaks.shared_groups,
        shared_near_duplicates=leaks.shared_near_duplicates,
        age_days=(datetime.now(UTC) - taken_at).total_seconds() / 86_400,
    )


def _measure_serving(context: EvaluationContext, kind: ModelKind, scratch: Path) -> ServingMetrics:
    folder = scratch / "images"
    folder.mkdir()
    images = [context.images.read(row.content_hash) for row in context.snapshot.part("test")[:MAX_IMAGES]]
    settings = context.connections.settings
    return measure_serving(context.candidate.build, kind, images, settings, folder, context.progress)


def summarize(metrics: EvaluationMetrics) -> dict[str, float | None]:
    """Select the most important metrics. Metrics that were not measured are left out."""
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
