"""Measure how closely the predictions of a build match the checkpoint in float32."""

from collections.abc import Sequence

import numpy as np

from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.evaluate.scores import ClassifierPredictions, rank_images

MIN_CONFIDENCE = 0.5
"""Agreement counts only predictions above this confidence. Below it, two categories may be almost equally likely."""
NEIGHBORS = 10
RECALL_DEPTH = 5
QUERIES = 1000
"""Queries of a block: their similarities to 10,000 images take 40 MB, and the sorted positions twice as much."""


def compare_classifiers(exact: ClassifierPredictions, fast: ClassifierPredictions, labels: Sequence[str]) -> Fidelity:
    """Compare predictions of the same images. If none of them is confident, the agreement is 1."""
    if not np.isfinite(fast.probabilities).all():
        return Fidelity(len(labels))
    lost = exact.is_correct(labels).sum() - fast.is_correct(labels).sum()
    is_confident = exact.probabilities.max(axis=1) > MIN_CONFIDENCE
    is_same = exact.probabilities.argmax(axis=1) == fast.probabilities.argmax(axis=1)
    return Fidelity(
        images=len(labels),
        lost_accuracy=float(lost) / len(labels),
        agreement=float(is_same[is_confident].mean()) if is_confident.any() else 1.0,
    )


def compare_encoders(
    exact: np.ndarray, fast: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], with_text: Sequence[int]
) -> Fidelity:
    """Compare unit vectors [n, dimensions] of the same images, at least two.

    ``texts`` and ``text_vectors`` belong to the images in the rows ``with_text``.
    """
    if not np.isfinite(fast).all():
        return Fidelity(len(exact))
    cosines = (exact * fast).sum(axis=1)
    rows = list(with_text)
    found = [
        float((rank_images(vectors[rows], text_vectors, texts) <= RECALL_DEPTH).mean()) if texts else 0.0
        for vectors in (exact, fast)
    ]
    return Fidelity(
        images=len(exact),
        mean_cosine=float(cosines.mean()),
        worst_cosine=float(cosines.min()),
        neighbor_recall=_recall_neighbors(exact, fast),
        lost_recall_at_5=found[0] - found[1],
    )


def _recall_neighbors(exact: np.ndarray, fast: np.ndarray) -> float:
    """Return the mean share of the ten nearest neighbors in float32 that are also found with the build.

    The lower value counts of two searches: with query and gallery from the build, and with only the query from it.
    Builds of a version share a space, so both occur.
    """
    depth = min(NEIGHBORS, len(exact) - 1)
    expected = _nearest(exact, exact, depth)

    def recall(found: list[list[int]]) -> float:
        shared = [len(set(left) & set(right)) for left, right in zip(expected, found, strict=True)]
        return float(np.mean(shared)) / depth

    return min(recall(_nearest(fast, fast, depth)), recall(_nearest(fast, exact, depth)))


def _nearest(queries: np.ndarray, gallery: np.ndarray, depth: int) -> list[list[int]]:
    """Return the nearest images of each query except itself, in blocks that bound the memory."""
    nearest: list[list[int]] = []
    for start in range(0, len(queries), QUERIES):
        similarities = queries[start : start + QUERIES] @ gallery.T
        own = np.arange(len(similarities))
        similarities[own, start + own] = -np.inf
        nearest += np.argsort(-similarities, axis=1, kind="stable")[:, :depth].tolist()
    return nearest
