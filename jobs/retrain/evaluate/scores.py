"""Score the predictions of classifiers and encoders, and compare two models on the same images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EncoderScores, PairedOutcomes, ReliabilityBin

CALIBRATION_BINS = 10
"""Fewer than the usual 15, because sampling noise adds to the error of each bin.

On 333 images, a bound of 0.05 rejects a perfectly calibrated model in 17 of 100 draws with 15 bins, but in 7 of 100
with 10 bins (`benchmarks.training.gates`).
"""
BATCH_SIZE = 32
RECALL_DEPTHS = (1, 5, 10)


def pair_outcomes(candidate_is_correct: np.ndarray, champion_is_correct: np.ndarray) -> PairedOutcomes:
    """Count the images that both models, only one, or neither gets right: bool [n] each, in the same order."""
    # Imported here because scikit-learn is slow to load.
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(candidate_is_correct, champion_is_correct, labels=[True, False])
    return PairedOutcomes(*counts.ravel().tolist())


@dataclass(frozen=True)
class ClassifierPredictions:
    """Probabilities [n, categories], and the category of each column."""

    probabilities: np.ndarray
    categories: tuple[str, ...]

    @property
    def top_3(self) -> list[list[str]]:
        """Return up to three categories of each image, best first, or none if its probabilities contain NaN."""
        # Stable, as in the ingest flow.
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :3]
        return [
            [self.categories[index] for index in row] if is_finite else []
            for row, is_finite in zip(order, np.isfinite(self.probabilities).all(axis=1), strict=True)
        ]

    @property
    def best(self) -> list[str | None]:
        """Return the category of each image, or None if its probabilities contain NaN."""
        return [row[0] if row else None for row in self.top_3]

    @property
    def confidence(self) -> np.ndarray:
        """Return the probability of the best category of each image."""
        highest: np.ndarray = self.probabilities.max(axis=1)
        return highest

    def is_correct(self, labels: Sequence[str]) -> np.ndarray:
        """Return whether the best category of each image is its label: bool [n]."""
        return np.array([best == label for best, label in zip(self.best, labels, strict=True)], dtype=bool)


def score_classifier(
    predictions: ClassifierPredictions,
    labels: Sequence[str],
    known_categories: Sequence[str],
    temperature: float | None,
) -> ClassifierScores:
    """Score predictions by category name.

    ``known_categories`` are the categories of the snapshot. Images whose category the model lacks count as wrong, and
    so do predictions of a category that only the model has.
    """
    # Imported here because scikit-learn is slow to load.
    from sklearn.metrics import confusion_matrix

    is_correct, best = predictions.is_correct(labels), predictions.best
    categories = sorted({*known_categories, *predictions.categories})
    # Predictions that contain NaN are not in any column.
    columns = [*categories, ""]
    confusion = confusion_matrix(labels, [one or "" for one in best], labels=columns)[:-1, :-1]
    images_by_category = Counter(labels)
    correct_by_category = Counter(label for label, correct in zip(labels, is_correct, strict=True) if correct)
    reliability = [] if None in best else bin_confidence(predictions.confidence, is_correct)
    return ClassifierScores(
        images=len(labels),
        correct=int(is_correct.sum()),
        top_3_correct=sum(label in top_3 for label, top_3 in zip(labels, predictions.top_3, strict=True)),
        categories=categories,
        images_by_category={category: images_by_category[category] for category in known_categories},
        recall_by_category={
            category: correct_by_category[category] / images_by_category[category]
            if images_by_category[category]
            else None
            for category in known_categories
        },
        confusion=confusion.tolist(),
        expected_calibration_error=measure_calibration_error(reliability),
        reliability=reliability,
        temperature=temperature,
    )


def bin_confidence(
    confidence: np.ndarray, is_correct: np.ndarray, number_of_bins: int = CALIBRATION_BINS
) -> list[ReliabilityBin]:
    """Group images into bins of equal width, and leave out empty bins. A bin includes its upper bound."""
    bins = np.clip(np.ceil(confidence * number_of_bins).astype(int) - 1, 0, number_of_bins - 1)
    return [
        ReliabilityBin(
            lower=float(number / number_of_bins),
            images=int((bins == number).sum()),
            confidence=float(confidence[bins == number].mean()),
            accuracy=float(is_correct[bins == number].mean()),
        )
        for number in np.unique(bins)
    ]


def measure_calibration_error(reliability: Sequence[ReliabilityBin]) -> float | None:
    """Return the expected calibration error, or None if there are no images.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    images = sum(one.images for one in reliability)
    if images == 0:
        return None
    return sum(one.images * abs(one.confidence - one.accuracy) for one in reliability) / images


@dataclass(frozen=True)
class EncoderResult:
    """The scores of an encoder, and the rank of the best image of each distinct text, starting at 1."""

    scores: EncoderScores
    ranks: np.ndarray


def score_encoder(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> EncoderResult:
    """Score images against their texts. Both arrays hold unit vectors [n, dimensions] in the order of ``texts``.

    Recall counts each distinct text once. ``logit_scale`` is the factor by which the model multiplies cosines before
    the softmax. If it is None, the loss is None.
    """
    if not texts or not (np.isfinite(image_vectors).all() and np.isfinite(text_vectors).all()):
        return EncoderResult(EncoderScores(len(texts), *[None] * 7), np.empty(0, dtype=int))
    ranks = rank_images(image_vectors, text_vectors, texts)
    loss, in_batch_accuracy = _score_batches(image_vectors, text_vectors, texts, logit_scale)
    recall_at_1, recall_at_5, recall_at_10 = (float((ranks <= depth).mean()) for depth in RECALL_DEPTHS)
    scores = EncoderScores(
        images=len(texts),
        loss=loss,
        clip_score=100 * float((image_vectors * text_vectors).sum(axis=1).mean()),
        in_batch_accuracy=in_batch_accuracy,
        recall_at_1=recall_at_1,
        recall_at_5=recall_at_5,
        recall_at_10=recall_at_10,
        mean_reciprocal_rank=float((1 / ranks).mean()),
    )
    return EncoderResult(scores, ranks)


def rank_images(image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return the rank of the best image of each distinct text, starting at 1, in order of first appearance.

    On equal similarity, images of other texts rank first, so an encoder with constant output finds nothing.
    """
    _, first, text_of_image = np.unique(np.array(texts, dtype=object), return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=int)
    for text_number, image in enumerate(first):
        similarities = image_vectors @ text_vectors[image]
        is_own = text_of_image == text_number
        ranks[text_number] = 1 + np.count_nonzero(similarities[~is_own] >= similarities[is_own].max())
    ordered: np.ndarray = ranks[np.argsort(first)]
    return ordered


def pair_recalls(candidate: EncoderResult, champion: EncoderResult) -> dict[str, PairedOutcomes] | None:
    """Pair the models text by text for each recall metric. Return None if one of them has no scores."""
    if not len(candidate.ranks) or not len(champion.ranks):
        return None
    return {
        f"recall_at_{depth}": pair_outcomes(candidate.ranks <= depth, champion.ranks <= depth)
        for depth in RECALL_DEPTHS
    }


def _score_batches(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> tuple[float | None, float]:
    """Return contrastive loss (Radford et al. 2021) and accuracy. Images with equal texts are not negatives."""
    losses, hits = 0.0, 0
    for start in range(0, len(texts), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        own_texts = np.array(texts[batch], dtype=object)
        is_same = torch.from_numpy(own_texts[:, None] == own_texts[None, :])
        logits = (logit_scale or 1) * torch.from_numpy(image_vectors[batch] @ text_vectors[batch].T)
        own = torch.arange(len(logits))
        masked = logits.masked_fill(is_same & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
        loss = (functional.cross_entropy(masked, own) + functional.cross_entropy(masked.T, own)) / 2
        losses += float(loss) * len(logits)
        hits += int(is_same[own, logits.argmax(dim=1)].sum())
    return losses / len(texts) if logit_scale else None, hits / len(texts)
