"""Prepare the charts and tables of the evaluation page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.charts import Chart, Dot, Line, Place, Series, draw_lines, format_value
from jobs.retrain.evaluate.evaluation_record import ClassifierScores, ReliabilityBin
from jobs.retrain.train.history import EpochRecord

RELIABILITY_SIDE = 330.0
MIN_DOT_RADIUS, MAX_DOT_RADIUS = 2.5, 14.0


@dataclass(frozen=True)
class CategoryBar:
    """The recall of a category, and the champion's recall if there is a champion."""

    category: str
    images: int
    recall: float | None
    champion_recall: float | None


@dataclass(frozen=True)
class ConfusionCell:
    """The number of images of a category that got one prediction, and their share of the category."""

    images: int
    share: float
    is_correct: bool
    prediction: str


@dataclass(frozen=True)
class ConfusionRow:
    """The predictions for the images of one category."""

    category: str
    images: int
    cells: tuple[ConfusionCell, ...]


def draw_history(history: Sequence[EpochRecord]) -> tuple[Chart, ...]:
    """Draw loss and accuracy over the epochs. Return no charts if there are no epochs."""
    if not history:
        return ()
    losses = [
        _make_series("train", [record.train_loss for record in history], 0),
        _make_series("validation", [record.validation_loss for record in history], 1),
    ]
    accuracy = [_make_series("validation", [record.validation_accuracy for record in history], 1)]
    epochs = [Place(f"epoch {record.epoch}", str(record.epoch)) for record in history]
    return (
        draw_lines("Loss by epoch", epochs, losses),
        draw_lines("Validation accuracy by epoch", epochs, accuracy, "share", highest=1.0),
    )


def _make_series(name: str, values: Sequence[float], color: int) -> Series:
    # Losses are not finite if the training diverged.
    finite = [value if math.isfinite(value) else None for value in values]
    last = f", {finite[-1]:.3g} after the last epoch" if finite[-1] is not None else ", diverged"
    return Series(f"{name}{last}", finite, color)


def draw_reliability(bins: Sequence[ReliabilityBin]) -> Chart | None:
    """Draw a dot per confidence bin, with an area proportional to its images and a line to the diagonal."""
    if not bins:
        return None
    side, largest = RELIABILITY_SIDE, max(one.images for one in bins)
    dots = tuple(
        Dot(
            0,
            one.confidence * side,
            (1 - one.accuracy) * side,
            max(MIN_DOT_RADIUS, MAX_DOT_RADIUS * (one.images / largest) ** 0.5),
            f"{one.images} images: confidence {one.confidence:.3f}, accuracy {one.accuracy:.3f}",
        )
        for one in bins
    )
    gaps = tuple(Line("gap", ((dot.x, side - dot.x), (dot.x, dot.y))) for dot in dots)
    ticks = [(share * side, format_value(share, "share")) for share in (0, 0.25, 0.5, 0.75, 1)]
    return Chart(
        "Accuracy by confidence",
        y_ticks=tuple((side - place, label) for place, label in ticks),
        x_ticks=tuple(ticks),
        lines=(Line("ideal", ((0, side), (side, 0))), *gaps),
        dots=dots,
        width=side,
        height=side,
    )


def list_category_bars(scores: ClassifierScores, champion: ClassifierScores | None) -> tuple[CategoryBar, ...]:
    """List the categories by rising recall. Categories without a recall come first."""
    bars = [
        CategoryBar(
            category,
            images,
            scores.recall_by_category.get(category),
            champion.recall_by_category.get(category) if champion else None,
        )
        for category, images in scores.images_by_category.items()
    ]
    return tuple(sorted(bars, key=lambda bar: (bar.recall is not None, bar.recall or 0.0, bar.category)))


def list_confusion(scores: ClassifierScores) -> tuple[ConfusionRow, ...]:
    """List the rows of the confusion matrix. Categories without images are left out."""
    return tuple(
        ConfusionRow(
            category,
            sum(counts),
            tuple(
                ConfusionCell(count, count / max(1, sum(counts)), prediction == category, prediction)
                for prediction, count in zip(scores.categories, counts, strict=False)
            ),
        )
        for category, counts in zip(scores.categories, scores.confusion, strict=False)
        if sum(counts) > 0
    )
