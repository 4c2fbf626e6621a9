"""How well a classifier does on labelled images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.evaluation.evaluation_record import ClassifierScores, ReliabilityBin

CALIBRATION_BINS = 10
"""Not 15, which are as usual: every bin is off by chance, and on 333 images a model whose confidence is exactly true
would be refused by a bound of 0.05 in 17 of 100 draws, with 10 bins in 7. `benchmarks.calibration_gate` counts them.
"""


@dataclass(frozen=True)
class ClassifierAnswers:
    """What a classifier says of images: probabilities [n, categories], and the names of their columns."""

    probabilities: np.ndarray
    categories: tuple[str, ...]

    @property
    def top_3(self) -> list[list[str]]:
        """Up to three categories of each image, best first; none where the model's numbers are no probabilities."""
        # Stable, as the tagger ranks them.
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :3]
        return [
            [self.categories[index] for index in row] if is_answer else []
            for row, is_answer in zip(order, np.isfinite(self.probabilities).all(axis=1), strict=True)
        ]

    @property
    def best(self) -> list[str | None]:
        """The category of each image, or None where the model's numbers are no probabilities."""
        return [row[0] if row else None for row in self.top_3]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the best category of each image."""
        highest: np.ndarray = self.probabilities.max(axis=1)
        return highest

    def is_right(self, labels: Sequence[str]) -> np.ndarray:
        """Whether each image got its label."""
        return np.array([best == label for best, label in zip(self.best, labels, strict=True)], dtype=bool)


def score_classifier(
    answers: ClassifierAnswers, labels: Sequence[str], known_categories: Sequence[str], temperature: float | None
) -> ClassifierScores:
    """Compare answers with labels by the categories' names.

    ``known_categories`` are those of the data set. One that the model does not know is always answered wrongly; one
    that only the model knows is one more way to be wrong.
    """
    # Here, since it is slow to load.
    from sklearn.metrics import confusion_matrix

    is_right = answers.is_right(labels)
    categories = sorted({*known_categories, *answers.categories})
    answered = [(label, best) for label, best in zip(labels, answers.best, strict=True) if best is not None]
    confusion = (
        confusion_matrix(*zip(*answered, strict=True), labels=categories).tolist()
        if answered
        else np.zeros((len(categories), len(categories)), dtype=int).tolist()
    )
    images_by_category = Counter(labels)
    correct_by_category = Counter(label for label, right in zip(labels, is_right, strict=True) if right)
    reliability = bin_confidence(answers.confidence, is_right) if len(answered) == len(labels) else []
    return ClassifierScores(
        images=len(labels),
        correct=int(is_right.sum()),
        top_3_correct=sum(label in top_3 for label, top_3 in zip(labels, answers.top_3, strict=True)),
        categories=categories,
        images_by_category={category: images_by_category[category] for category in known_categories},
        recall_by_category={
            category: correct_by_category[category] / images_by_category[category]
            if images_by_category[category]
            else None
            for category in known_categories
        },
        confusion=confusion,
        expected_calibration_error=measure_calibration_error(reliability),
        reliability=reliability,
        temperature=temperature,
    )


def bin_confidence(
    confidence: np.ndarray, is_right: np.ndarray, number_of_bins: int = CALIBRATION_BINS
) -> list[ReliabilityBin]:
    """The bins of equal width that hold images; the upper bound belongs to a bin (Guo et al. 2017)."""
    bins = np.clip(np.ceil(confidence * number_of_bins).astype(int) - 1, 0, number_of_bins - 1)
    return [
        ReliabilityBin(
            lower=float(number / number_of_bins),
            images=int((bins == number).sum()),
            confidence=float(confidence[bins == number].mean()),
            accuracy=float(is_right[bins == number].mean()),
        )
        for number in np.unique(bins)
    ]


def measure_calibration_error(reliability: Sequence[ReliabilityBin]) -> float | None:
    """Expected calibration error: how far confidence and accuracy of a bin lie apart, weighted by its images.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3. None of no images.
    """
    images = sum(one.images for one in reliability)
    if images == 0:
        return None
    return sum(one.images * abs(one.confidence - one.accuracy) for one in reliability) / images
