"""Charts of a candidate's page, as coordinates that its template draws as SVG; y grows downwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.retrain.evaluate.evaluation_record import ClassifierScores, ReliabilityBin
from jobs.retrain.train.history import EpochRecord

CHART_WIDTH, CHART_HEIGHT = 430, 130
RELIABILITY_SIDE = 330
LARGEST_DOT = 14.0


@dataclass(frozen=True)
class Line:
    """A named series, as points, and its value after the last epoch."""

    name: str
    points: tuple[tuple[float, float], ...]
    last: float


@dataclass(frozen=True)
class LineChart:
    """Lines over the epochs of a training, between ``lowest`` and ``highest``."""

    title: str
    lines: tuple[Line, ...]
    lowest: float
    highest: float
    epochs: int


@dataclass(frozen=True)
class ReliabilityDot:
    """The images of one bin of confidence: where they lie, and how far from the diagonal, which is at ``ideal_y``."""

    x: float
    y: float
    ideal_y: float
    radius: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassBar:
    """The recall of a category, beside the champion's where there is one."""

    category: str
    images: int
    recall: float | None
    champion_recall: float | None


@dataclass(frozen=True)
class ConfusionCell:
    """How often a category got an answer, also as the share of its images."""

    images: int
    share: float
    is_right: bool
    answer: str


@dataclass(frozen=True)
class ConfusionRow:
    """The answers that the images of one category got."""

    category: str
    images: int
    cells: tuple[ConfusionCell, ...]


def draw_history(history: Sequence[EpochRecord]) -> tuple[LineChart, ...]:
    """Loss and accuracy over the epochs; nothing without any."""
    if not history:
        return ()
    losses = {
        "train": [record.train_loss for record in history],
        "validation": [record.validation_loss for record in history],
    }
    highest = max((loss for values in losses.values() for loss in values if math.isfinite(loss)), default=0.0)
    accuracy = {"validation": [record.validation_accuracy for record in history]}
    return (
        _draw_lines("Loss", losses, 0.0, highest or 1.0),
        _draw_lines("Right on validation photos", accuracy, 0.0, 1.0),
    )


def draw_reliability(bins: Sequence[ReliabilityBin]) -> tuple[ReliabilityDot, ...]:
    """One dot for each bin, whose area says how many images it holds."""
    most = max((one.images for one in bins), default=1)
    return tuple(
        ReliabilityDot(
            x=one.confidence * RELIABILITY_SIDE,
            y=(1 - one.accuracy) * RELIABILITY_SIDE,
            ideal_y=(1 - one.confidence) * RELIABILITY_SIDE,
            radius=max(2.5, LARGEST_DOT * (one.images / most) ** 0.5),
            images=one.images,
            confidence=one.confidence,
            accuracy=one.accuracy,
        )
        for one in bins
    )


def list_class_bars(scores: ClassifierScores, champion: ClassifierScores | None) -> tuple[ClassBar, ...]:
    """The categories, least recognised first; those without a recall lead."""
    bars = [
        ClassBar(
            category,
            images,
            scores.recall_by_category.get(category),
            champion.recall_by_category.get(category) if champion else None,
        )
        for category, images in scores.images_by_category.items()
    ]
    return tuple(sorted(bars, key=lambda bar: (bar.recall is not None, bar.recall or 0.0, bar.category)))


def list_confusion(scores: ClassifierScores) -> tuple[ConfusionRow, ...]:
    """The confusion matrix by rows of the true categories, without those of which there is no image."""
    return tuple(
        ConfusionRow(
            category,
            sum(counts),
            tuple(
                ConfusionCell(count, count / max(1, sum(counts)), answer == category, answer)
                for answer, count in zip(scores.categories, counts, strict=False)
            ),
        )
        for category, counts in zip(scores.categories, scores.confusion, strict=False)
        if sum(counts) > 0
    )


def _draw_lines(title: str, series: dict[str, list[float]], lowest: float, highest: float) -> LineChart:
    epochs = max(len(values) for values in series.values())

    def place(number: int, value: float) -> tuple[float, float]:
        across = number / (epochs - 1) if epochs > 1 else 0.5
        return CHART_WIDTH * across, CHART_HEIGHT * (1 - (value - lowest) / (highest - lowest))

    lines = (
        # A training that diverged has losses that are no numbers.
        Line(
            name,
            tuple(place(number, value) for number, value in enumerate(values) if math.isfinite(value)),
            values[-1],
        )
        for name, values in series.items()
    )
    return LineChart(title, tuple(lines), lowest, highest, epochs)
