"""The latest candidate of each kind beside the champion that it was measured against."""

from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Connection, text

from jobs.database.evaluations import Evaluation, read_latest_evaluation
from jobs.database.model_versions import MODEL_KINDS
from jobs.database.promotions import read_latest_promotion
from jobs.errors import RefusedError
from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EncoderScores, EvaluationMetrics
from jobs.retrain.promote import require_promotable


@dataclass(frozen=True)
class ComparedMetric:
    """One figure of both on the same test images, from 0 to 1 unless its name says otherwise."""

    name: str
    candidate: float | None
    champion: float | None


@dataclass(frozen=True)
class Comparison:
    """A candidate; ``refusal`` says why it may not be promoted, None if it may or is the champion already."""

    evaluation: Evaluation
    metrics: tuple[ComparedMetric, ...]
    is_champion: bool
    refusal: str | None


def read_comparisons(connection: Connection) -> tuple[Comparison, ...]:
    """The latest candidate of each kind that was evaluated."""
    runs = [
        (kind, run_id)
        for kind in MODEL_KINDS
        for run_id in connection.execute(
            text("SELECT run_id FROM catalog.evaluations WHERE kind = :kind ORDER BY evaluation_id DESC LIMIT 1"),
            {"kind": kind},
        ).scalars()
    ]
    evaluations = [read_latest_evaluation(connection, run_id, kind) for kind, run_id in runs]
    return tuple(compare(connection, evaluation) for evaluation in evaluations if evaluation)


def read_comparison(connection: Connection, model_version_id: int) -> Comparison | None:
    """A version as a candidate, by its latest evaluation, unless its run was evaluated anew with another one."""
    row = connection.execute(
        text("""
            SELECT run_id, kind FROM catalog.evaluations
            WHERE candidate_version_id = :version ORDER BY evaluation_id DESC LIMIT 1
        """),
        {"version": model_version_id},
    ).one_or_none()
    evaluation = read_latest_evaluation(connection, row.run_id, row.kind) if row else None
    if evaluation is None or evaluation.candidate_version_id != model_version_id:
        return None
    return compare(connection, evaluation)


def compare(connection: Connection, evaluation: Evaluation) -> Comparison:
    """What an evaluation says of both, and whether its candidate may be promoted now."""
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
        # Written by another version of this project, whose gates decided on it.
        return ()
    if evaluation.kind == "classifier":
        figures = zip(_list_classifier(metrics.classifier), _list_classifier(metrics.champion_classifier), strict=True)
    else:
        figures = zip(_list_encoder(metrics.encoder), _list_encoder(metrics.champion_encoder), strict=True)
    return tuple(ComparedMetric(name, candidate, champion) for (name, candidate), (_, champion) in figures)


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
        ("CLIP score, 0 to 100", scores.clip_score if scores else None),
    ]
