"""Compare the latest candidate of each kind with the champion that it was measured against."""

from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Connection

from jobs.database.evaluations import Evaluation, find_evaluation, find_latest_evaluation
from jobs.database.model_versions import MODEL_KINDS
from jobs.database.promotions import read_latest_promotion
from jobs.errors import RefusedError
from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EncoderScores, EvaluationMetrics
from jobs.retrain.promote import require_promotable

CLIP_SCORE = "CLIP score, 0 to 100"


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of both models on the same test images. ``is_share`` is true if it ranges from 0 to 1."""

    name: str
    candidate: float | None
    champion: float | None
    is_share: bool

    @property
    def difference(self) -> float | None:
        """Return by how much the candidate's value is higher."""
        if self.candidate is None or self.champion is None:
            return None
        return self.candidate - self.champion


@dataclass(frozen=True)
class Comparison:
    """A candidate. ``refusal`` is the reason why it may not be promoted: None if it may, or is already the champion."""

    evaluation: Evaluation
    metrics: tuple[ComparedMetric, ...]
    is_champion: bool
    refusal: str | None


def read_comparisons(connection: Connection) -> tuple[Comparison, ...]:
    """Compare the latest evaluated candidate of each kind."""
    evaluations = [find_latest_evaluation(connection, kind) for kind in MODEL_KINDS]
    return tuple(compare(connection, evaluation) for evaluation in evaluations if evaluation)


def read_comparison(connection: Connection, model_version_id: int) -> Comparison | None:
    """Compare a version by its latest evaluation. Return None if its run has since evaluated another candidate."""
    evaluation = find_evaluation(connection, model_version_id)
    return compare(connection, evaluation) if evaluation else None


def compare(connection: Connection, evaluation: Evaluation) -> Comparison:
    """Compare the models of an evaluation, and check whether the candidate may be promoted now."""
    latest = read_latest_promotion(connection, evaluation.kind)
    champion = latest.model_version_id if latest else None
    is_champion = champion == evaluation.candidate_version_id
    refusal = None
    if not is_champion:
        try:
            require_promotable(connection, evaluation, champion)
        except RefusedError as error:
            refusal = str(error)
    return Comparison(evaluation, _compare_metrics(evaluation), is_champion, refusal)


def _compare_metrics(evaluation: Evaluation) -> tuple[ComparedMetric, ...]:
    try:
        metrics = EvaluationMetrics.from_record(evaluation.metrics)
    except ValidationError:
        # Written by another version of this project.
        return ()
    if evaluation.kind == "classifier":
        figures = zip(_list_classifier(metrics.classifier), _list_classifier(metrics.champion_classifier), strict=True)
    else:
        figures = zip(_list_encoder(metrics.encoder), _list_encoder(metrics.champion_encoder), strict=True)
    return tuple(
        ComparedMetric(name, candidate, champion, name != CLIP_SCORE) for (name, candidate), (_, champion) in figures
    )


def _list_classifier(scores: ClassifierScores | None) -> list[tuple[str, float | None]]:
    images = scores.images if scores else 0
    return [
        ("accuracy", scores.correct / images if scores and images else None),
        ("top 3 accuracy", scores.top_3_correct / images if scores and images else None),
        ("calibration error", scores.expected_calibration_error if scores else None),
    ]


def _list_encoder(scores: EncoderScores | None) -> list[tuple[str, float | None]]:
    return [
        ("recall at 1", scores.recall_at_1 if scores else None),
        ("recall at 5", scores.recall_at_5 if scores else None),
        ("recall at 10", scores.recall_at_10 if scores else None),
        (CLIP_SCORE, scores.clip_score if scores else None),
    ]
