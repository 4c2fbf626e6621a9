"""Score a candidate and the champion on the same test images, and list flips and suspicious labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.connections import Connections
from jobs.database.drift_references import CONFIDENCE_BINS, DriftReference
from jobs.images.thumbnails import THUMBNAIL_SIDE, make_thumbnail
from jobs.models.classifier import read_temperature
from jobs.models.device import Device
from jobs.models.encoder import load_text_encoder
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.blast_radius import measure_blast_radius
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    MAX_THUMBNAILS,
    PREDICTIONS_FILE,
    ClassifierScores,
    EvaluationMetrics,
    LabelSuspect,
    encode_list,
)
from jobs.retrain.evaluate.scores import (
    ClassifierPredictions,
    EncoderResult,
    pair_outcomes,
    pair_recalls,
    score_classifier,
    score_encoder,
)
from jobs.retrain.evaluate.served_model import ServedModel, ServedVersion, load_served_model, map_batches
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow
from jobs.retrain.snapshot.snapshot_images import SnapshotImages

MAX_TRAIN_IMAGES = 1000


@dataclass(frozen=True)
class EvaluationContext:
    """The candidate and the champion, and the images and device to evaluate both with."""

    connections: Connections
    snapshot: Snapshot
    images: SnapshotImages
    device: Device
    candidate: ServedVersion
    champion: ServedVersion | None
    progress: Progress = SILENT

    def predict(self, model: ServedModel, rows: Sequence[SnapshotRow]) -> np.ndarray:
        """Return the float32 probabilities or unit vectors [n, outputs] of a model."""
        return model.predict_in_batches(
            rows, lambda batch: self.images.load_pixels(batch, model.geometry), self.progress
        )


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics, and the files by name that are stored with them."""

    metrics: EvaluationMetrics
    files: dict[str, bytes] = field(default_factory=dict)
    drift_reference: DriftReference | None = None


def evaluate_classifier(context: EvaluationContext) -> EvaluationResult:
    """Score the candidate and the champion on the test images. Without test images, the result is empty."""
    rows = context.snapshot.part("test")
    if not rows:
        return EvaluationResult(EvaluationMetrics())
    labels = [row.category for row in rows]
    model = load_served_model(context.candidate.build, "classifier", context.device)
    candidate = _predict(context, model, rows)
    scores = _score_classifier(context, context.candidate, candidate, labels)
    champion, champion_scores, paired, change = None, None, None, None
    if context.champion is not None:
        champion = _predict(context, load_served_model(context.champion.build, "classifier", context.device), rows)
        champion_scores = _score_classifier(context, context.champion, champion, labels)
        paired = pair_outcomes(candidate.is_correct(labels), champion.is_correct(labels))
        change = measure_blast_radius(context.connections, model, progress=context.progress)
    metrics = EvaluationMetrics(
        classifier=scores,
        champion_classifier=champion_scores,
        paired=paired,
        blast_radius=change.blast_radius if change else None,
    )
    missing = [None] * len(rows)
    predictions = _encode_predictions(
        {
            "content_hash": [row.content_hash for row in rows],
            "label": labels,
            "category": candidate.best,
            "confidence": candidate.confidence,
            "champion_category": champion.best if champion else missing,
            "champion_confidence": champion.confidence if champion else missing,
        }
    )
    files = {
        PREDICTIONS_FILE: predictions,
        LABEL_AUDIT_FILE: encode_list(_audit_unseen_labels(context, model, rows, candidate)),
        FLIPS_FILE: encode_list(change.flips if change else ()),
    }
    return EvaluationResult(metrics, files, count_predictions(candidate))


def _predict(context: EvaluationContext, model: ServedModel, rows: Sequence[SnapshotRow]) -> ClassifierPredictions:
    return ClassifierPredictions(context.predict(model, rows), model.categories)


def _score_classifier(
    context: EvaluationContext, served: ServedVersion, predictions: ClassifierPredictions, labels: Sequence[str]
) -> ClassifierScores:
    return score_classifier(predictions, labels, context.snapshot.categories, read_temperature(served.checkpoint))


def count_predictions(predictions: ClassifierPredictions) -> DriftReference:
    """Count predictions by category and by confidence. Predictions that contain NaN are left out."""
    best = [category for category in predictions.best if category is not None]
    confidence = predictions.confidence[[category is not None for category in predictions.best]]
    counts, _ = np.histogram(confidence, bins=CONFIDENCE_BINS, range=(0, 1))
    return DriftReference(dict(Counter(best)), counts.tolist())


def _audit_unseen_labels(
    context: EvaluationContext, model: ServedModel, test: Sequence[SnapshotRow], on_test: ClassifierPredictions
) -> list[LabelSuspect]:
    """Audit the labels of all images that the candidate was not trained on."""
    validation = context.snapshot.part("validation")
    probabilities = [on_test.probabilities]
    if validation:
        probabilities.append(_predict(context, model, validation).probabilities)
    predictions = ClassifierPredictions(np.concatenate(probabilities), model.categories)

    def read_thumbnail(row: SnapshotRow) -> str:
        return make_thumbnail(context.images.decode(row.content_hash, 2 * THUMBNAIL_SIDE).pixels)

    return audit_labels([*test, *validation], predictions, read_thumbnail)


def audit_labels(
    rows: Sequence[SnapshotRow], predictions: ClassifierPredictions, read_thumbnail: Callable[[SnapshotRow], str]
) -> list[LabelSuspect]:
    """Rank the labels that are likely wrong, according to a classifier that was not trained on these images.

    Uses the method of Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels". Returns
    nothing if a prediction contains NaN or the classifier does not know all categories.
    """
    # Imported here because cleanlab is slow to load.
    from cleanlab.filter import find_label_issues

    known = set(predictions.categories)
    if not np.isfinite(predictions.probabilities).all() or not {row.category for row in rows} <= known:
        return []
    numbers = {category: number for number, category in enumerate(predictions.categories)}
    labels = np.array([numbers[row.category] for row in rows])
    ranked = find_label_issues(labels, predictions.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = predictions.best
    return [
        LabelSuspect(
            content_hash=rows[index].content_hash,
            given_label=rows[index].category,
            suggested_label=best[index] or rows[index].category,
            score=float(predictions.probabilities[index, labels[index]]),
            thumbnail=read_thumbnail(rows[index]) if place < MAX_THUMBNAILS else None,
        )
        for place, index in enumerate(ranked)
    ]


def evaluate_encoder(context: EvaluationContext) -> EvaluationResult:
    """Score the candidate and the champion on the test images that have a text.

    The candidate is also scored on up to 1,000 train images: the first by content hash, which is a random sample.
    """
    test = [row for row in context.snapshot.part("test") if row.full_text]
    train = [row for row in context.snapshot.part("train") if row.full_text][:MAX_TRAIN_IMAGES]
    candidate, cosines = _score_encoder(context, context.candidate, test)
    champion, champion_cosines = _score_encoder(context, context.champion, test) if context.champion else (None, None)
    metrics = EvaluationMetrics(
        encoder=candidate.scores,
        encoder_on_train=_score_encoder(context, context.candidate, train)[0].scores,
        champion_encoder=champion.scores if champion else None,
        paired_recall=pair_recalls(candidate, champion) if champion else None,
    )
    predictions = _encode_predictions(
        {
            "content_hash": [row.content_hash for row in test],
            "full_text": [row.full_text for row in test],
            "cosine": cosines,
            "champion_cosine": [None] * len(test) if champion_cosines is None else champion_cosines,
        }
    )
    return EvaluationResult(metrics, {PREDICTIONS_FILE: predictions})


def _score_encoder(
    context: EvaluationContext, served: ServedVersion, rows: Sequence[SnapshotRow]
) -> tuple[EncoderResult, np.ndarray]:
    """Return the scores and the cosine of each image and its text."""
    if not rows:
        nothing = np.empty((0, 1), dtype=np.float32)
        return score_encoder(nothing, nothing, [], logit_scale=1), nothing[:, 0]
    images = load_served_model(served.build, "encoder", context.device)
    texts = load_text_encoder(served.checkpoint, context.device.in_precision("fp32"))
    image_vectors = context.predict(images, rows)
    full_texts = [row.full_text for row in rows]
    text_vectors = map_batches(texts.embed, full_texts, context.device)
    logit_scale = float(texts.model.logit_scale.detach().exp()) if hasattr(texts.model, "logit_scale") else None
    result = score_encoder(image_vectors, text_vectors, full_texts, logit_scale)
    return result, (image_vectors * text_vectors).sum(axis=1)


def _encode_predictions(columns: dict[str, Sequence[Any] | np.ndarray]) -> bytes:
    """Encode one row for each image as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
