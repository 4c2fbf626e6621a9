"""Score predictions of classifiers and encoders, each alone and two models on the same photos."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EncoderScores, PairedOutcomes, ReliabilityBin


def pair_outcomes(candidate_is_right: np.ndarray, champion_is_right: np.ndarray) -> PairedOutcomes:
    """Count how often both, one alone, or none was right; bool [n] each, in the same order of questions."""
    return PairedOutcomes(
        both=int((candidate_is_right & champion_is_right).sum()),
        only_candidate=int((candidate_is_right & ~champion_is_right).sum()),
        only_champion=int((~candidate_is_right & champion_is_right).sum()),
        neither=int((~candidate_is_right & ~champion_is_right).sum()),
    )


CALIBRATION_BINS = 10
"""Fewer than the usual 15: chance moves every bin, and on 333 images a bound of 0.05 would refuse a perfectly
calibrated model in 17 of 100 draws, with 10 bins in 7 (`benchmarks.training.gates`).
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


BATCH_SIZE = 32
RECALL_DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class EncoderOutcome:
    """The scores of an encoder, and the rank of the best photo for each different text, from 1, in their order."""

    scores: EncoderScores
    ranks: np.ndarray


def score_encoder(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> EncoderOutcome:
    """Score photos with their texts, whose unit vectors are rows [n, dimensions] in the same order.

    A text that several photos share is asked for once, so that every answer counts once. ``logit_scale`` is the
    factor by which the model multiplies cosines before their softmax; without one there is no loss.
    """
    if not texts or not (np.isfinite(image_vectors).all() and np.isfinite(text_vectors).all()):
        return EncoderOutcome(EncoderScores(len(texts), *[None] * 7), np.empty(0, dtype=int))
    ranks = rank_photos(image_vectors, text_vectors, texts)
    loss, in_batch_accuracy = _score_batches(image_vectors, text_vectors, texts, logit_scale)
    scores = EncoderScores(
        images=len(texts),
        loss=loss,
        clip_score=100 * float((image_vectors * text_vectors).sum(axis=1).mean()),
        in_batch_accuracy=in_batch_accuracy,
        recall_at_1=float((ranks <= 1).mean()),
        recall_at_5=float((ranks <= 5).mean()),
        recall_at_10=float((ranks <= 10).mean()),
        mean_reciprocal_rank=float((1 / ranks).mean()),
    )
    return EncoderOutcome(scores, ranks)


def rank_photos(image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The rank, from 1, of the best photo of each different text among all photos, in the order of first mention.

    Photos of other texts that are just as near count as nearer: an encoder to which all is alike finds nothing.
    """
    _, first, text_of_photo = np.unique(np.array(texts, dtype=object), return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=int)
    for text_number, photo in enumerate(first):
        similarities = image_vectors @ text_vectors[photo]
        is_own = text_of_photo == text_number
        ranks[text_number] = 1 + np.count_nonzero(similarities[~is_own] >= similarities[is_own].max())
    ordered: np.ndarray = ranks[np.argsort(first)]
    return ordered


def pair_recalls(candidate: EncoderOutcome, champion: EncoderOutcome) -> dict[str, PairedOutcomes] | None:
    """Who found which text's photo, by the name of the recall; None where one of them could not be scored."""
    if not len(candidate.ranks) or not len(champion.ranks):
        return None
    return {
        f"recall_at_{depth}": pair_outcomes(candidate.ranks <= depth, champion.ranks <= depth)
        for depth in RECALL_DEPTHS
    }


def _score_batches(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> tuple[float | None, float]:
    """Contrastive loss (Radford et al. 2021) and accuracy; photos of the same text are no negatives of each other."""
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
