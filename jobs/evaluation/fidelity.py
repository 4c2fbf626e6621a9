"""What a faster way to compute a model costs: its answers beside those of the same model in float32."""

from collections.abc import Sequence

import numpy as np

from jobs.evaluation.classifier_scores import ClassifierAnswers
from jobs.evaluation.encoder_scores import rank_photos
from jobs.evaluation.evaluation_record import Fidelity

CONFIDENT = 0.5
"""A first answer above it should not change; below it two categories may be nearly alike."""
NEIGHBOURS = 10
RECALL_DEPTH = 5


def compare_classifiers(exact: ClassifierAnswers, fast: ClassifierAnswers, labels: Sequence[str]) -> Fidelity:
    """Compare answers to the same images, at least one; where none is confident, none can have changed."""
    if not np.isfinite(fast.probabilities).all():
        return Fidelity(len(labels))
    only_exact = exact.is_right(labels) & ~fast.is_right(labels)
    only_fast = fast.is_right(labels) & ~exact.is_right(labels)
    is_confident = exact.probabilities.max(axis=1) > CONFIDENT
    is_same = exact.probabilities.argmax(axis=1) == fast.probabilities.argmax(axis=1)
    return Fidelity(
        images=len(labels),
        lost_accuracy=float(only_exact.sum() - only_fast.sum()) / len(labels),
        agreement=float(is_same[is_confident].mean()) if is_confident.any() else 1.0,
    )


def compare_encoders(
    exact: np.ndarray, fast: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], with_text: Sequence[int]
) -> Fidelity:
    """Compare unit vectors [n, dimensions] of the same photos, at least two.

    ``text_vectors`` are those of ``texts``, which belong to the photos whose rows are ``with_text``.
    """
    if not np.isfinite(fast).all():
        return Fidelity(len(exact))
    cosines = (exact * fast).sum(axis=1)
    rows = list(with_text)
    found = [
        float((rank_photos(vectors[rows], text_vectors, texts) <= RECALL_DEPTH).mean()) if texts else 0.0
        for vectors in (exact, fast)
    ]
    return Fidelity(
        images=len(exact),
        mean_cosine=float(cosines.mean()),
        worst_cosine=float(cosines.min()),
        neighbour_recall=_recall_neighbours(exact, fast),
        lost_recall_at_5=found[0] - found[1],
    )


def _recall_neighbours(exact: np.ndarray, fast: np.ndarray) -> float:
    """The share of each photo's ten nearest in float32 that are among its ten nearest here."""
    depth = min(NEIGHBOURS, len(exact) - 1)
    expected, found = (_nearest(vectors, depth) for vectors in (exact, fast))
    return float(np.mean([len(set(left) & set(right)) for left, right in zip(expected, found, strict=True)])) / depth


def _nearest(vectors: np.ndarray, depth: int) -> list[list[int]]:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    nearest: list[list[int]] = np.argsort(-similarities, axis=1, kind="stable")[:, :depth].tolist()
    return nearest
