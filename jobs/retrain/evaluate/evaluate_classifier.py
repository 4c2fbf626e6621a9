"""Evaluate a candidate classifier: scores, comparison with the champion, effect on the catalog, suspicious labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jobs.database.drift_references import CONFIDENCE_BINS, DriftReference
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image
from jobs.images.thumbnails import THUMBNAIL_SIDE, make_thumbnail
from jobs.models.classifier import read_temperature
from jobs.retrain.evaluate.blast_radius import measure_blast_radius
from jobs.retrain.evaluate.context import Measured, Trial, encode_predictions
from jobs.retrain.evaluate.evaluation_files import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    MAX_THUMBNAILS,
    PREDICTIONS_FILE,
    LabelSuspect,
    encode_list,
)
from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EvaluationMetrics
from jobs.retrain.evaluate.scores import ClassifierAnswers, pair_outcomes, score_classifier
from jobs.retrain.evaluate.served_model import ServedModel, load_served_model
from jobs.retrain.snapshot.snapshot_file import SnapshotRow
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos


def audit_labels(
    rows: Sequence[SnapshotRow], answers: ClassifierAnswers, read_thumbnail: Callable[[SnapshotRow], str]
) -> list[LabelSuspect]:
    """Rank the labels that disagree with a classifier which never learned from these images.

    By the method of Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels". Nothing is
    found where the classifier answers no numbers, or does not know the categories.
    """
    # Here, since it is slow to load.
    from cleanlab.filter import find_label_issues

    if not np.isfinite(answers.probabilities).all() or not {row.category for row in rows} <= set(answers.categories):
        return []
    numbers = {category: number for number, category in enumerate(answers.categories)}
    labels = np.array([numbers[row.category] for row in rows])
    ranked = find_label_issues(labels, answers.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = answers.best
    return [
        LabelSuspect(
            content_hash=rows[index].content_hash,
            given_label=rows[index].category,
            suggested_label=best[index] or rows[index].category,
            score=float(answers.probabilities[index, labels[index]]),
            thumbnail=read_thumbnail(rows[index]) if place < MAX_THUMBNAILS else None,
        )
        for place, index in enumerate(ranked)
    ]


def evaluate_classifier(trial: Trial) -> Measured:
    """Ask candidate and champion for the same test images; a data set without any gives nothing."""
    rows = trial.snapshot.part("test")
    if not rows:
        return Measured(EvaluationMetrics())
    labels = [row.category for row in rows]
    model = load_served_model(trial.candidate, "classifier", trial.device)
    candidate = _answer(trial, model, rows)
    champion, change = None, None
    if trial.champion is not None:
        champion = _answer(trial, load_served_model(trial.champion, "classifier", trial.device), rows)
        change = measure_blast_radius(trial.connections, model, progress=trial.progress)
    paired = pair_outcomes(candidate.is_right(labels), champion.is_right(labels)) if champion else None
    metrics = EvaluationMetrics(
        classifier=_score(trial, trial.candidate, candidate, labels),
        champion_classifier=_score(trial, trial.champion, champion, labels) if trial.champion and champion else None,
        paired=paired,
        blast_radius=change.blast_radius if change else None,
    )
    files = {
        PREDICTIONS_FILE: _encode_predictions(rows, candidate, champion),
        LABEL_AUDIT_FILE: encode_list(_audit(trial, model, rows, candidate)),
        FLIPS_FILE: encode_list(change.flips if change else ()),
    }
    return Measured(metrics, files, count_answers(candidate))


def count_answers(answers: ClassifierAnswers) -> DriftReference:
    """Count answers by their category and by their confidence, those without a number left out."""
    best = [category for category in answers.best if category is not None]
    confidence = answers.confidence[[category is not None for category in answers.best]]
    counts, _ = np.histogram(confidence, bins=CONFIDENCE_BINS, range=(0, 1))
    return DriftReference(dict(Counter(best)), counts.tolist())


def _answer(trial: Trial, model: ServedModel, rows: Sequence[SnapshotRow]) -> ClassifierAnswers:
    pixels = trial.photos.load_pixels(rows, model.geometry)
    return ClassifierAnswers(model.predict(pixels, trial.progress), model.categories)


def _score(trial: Trial, folder: Path, answers: ClassifierAnswers, labels: Sequence[str]) -> ClassifierScores:
    return score_classifier(answers, labels, trial.snapshot.categories, read_temperature(folder))


def _audit(
    trial: Trial, model: ServedModel, test: Sequence[SnapshotRow], on_test: ClassifierAnswers
) -> list[LabelSuspect]:
    """Doubt the labels of all images that the candidate did not learn from."""
    validation = trial.snapshot.part("validation")
    probabilities = [on_test.probabilities]
    if validation:
        probabilities.append(_answer(trial, model, validation).probabilities)
    answers = ClassifierAnswers(np.concatenate(probabilities), model.categories)
    return audit_labels([*test, *validation], answers, lambda row: _read_thumbnail(trial.photos, row))


def _read_thumbnail(photos: SnapshotPhotos, row: SnapshotRow) -> str:
    limits = DecodeLimits.for_labelled_photo(2 * THUMBNAIL_SIDE)
    decoded = decode_image(photos.read(row.content_hash), limits)
    # It was decoded before, when the model was asked.
    assert isinstance(decoded, DecodedImage)
    return make_thumbnail(decoded.pixels)


def _encode_predictions(
    rows: Sequence[SnapshotRow], candidate: ClassifierAnswers, champion: ClassifierAnswers | None
) -> bytes:
    nothing = [None] * len(rows)
    return encode_predictions(
        {
            "content_hash": [row.content_hash for row in rows],
            "label": [row.category for row in rows],
            "category": candidate.best,
            "confidence": candidate.confidence,
            "champion_category": champion.best if champion else nothing,
            "champion_confidence": champion.confidence if champion else nothing,
        }
    )
