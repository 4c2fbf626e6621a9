"""Measure how closely the predictions of a build match the checkpoint in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError
from jobs.models.image_model import EngineName, ModelBuild, Precision, read_build
from jobs.retrain.evaluate.evaluation_record import Fidelity, ServedBuild
from jobs.retrain.evaluate.scores import ClassifierPredictions, rank_images

FIDELITY_FILE = "fidelity.json"


@dataclass(frozen=True)
class Attempt:
    """A build that `optimize` tried, with the criteria of the fidelity gate that it failed.

    ``int8_share`` and ``float_blocks`` are copied from its `ModelBuild`.
    """

    engine: EngineName
    precision: Precision
    fidelity: Fidelity
    losses: tuple[str, ...]
    int8_share: float | None = None
    float_blocks: tuple[str, ...] = ()

    def is_of(self, build: ModelBuild) -> bool:
        """Return whether this attempt produced the given build."""
        key = build.engine, build.precision, build.float_blocks
        return (self.engine, self.precision, self.float_blocks) == key


def write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    """Store all attempts in the artifact, in the order in which they were tried."""
    (folder / FIDELITY_FILE).write_bytes(TypeAdapter(list[Attempt]).dump_json(list(attempts), indent=1))


def read_served_build(folder: Path) -> ServedBuild | None:
    """Read the build record of an artifact and its fidelity. Return None if it has no build record.

    Raises:
        PermanentError: a file of the artifact cannot be parsed.
    """
    build = read_build(folder)
    if build is None:
        return None
    file = folder / FIDELITY_FILE
    try:
        attempts = TypeAdapter(list[Attempt]).validate_json(file.read_bytes()) if file.is_file() else []
    except ValidationError as error:
        raise PermanentError(
            f"{file} cannot be parsed ({error.errors()[0]['msg']}). Run `python -m jobs optimize` again"
        ) from None
    measured = [attempt.fidelity for attempt in attempts if attempt.is_of(build)]
    return ServedBuild(build.engine, build.precision, measured[0] if measured else None)


MIN_CONFIDENCE = 0.5
"""Agreement counts only predictions above this confidence. Below it, two categories may be almost equally likely."""
NEIGHBORS = 10
RECALL_DEPTH = 5


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
    """Return the mean share of the ten nearest neighbors in float32 that the build also returns."""
    depth = min(NEIGHBORS, len(exact) - 1)
    expected, found = (_nearest(vectors, depth) for vectors in (exact, fast))
    return float(np.mean([len(set(left) & set(right)) for left, right in zip(expected, found, strict=True)])) / depth


def _nearest(vectors: np.ndarray, depth: int) -> list[list[int]]:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    nearest: list[list[int]] = np.argsort(-similarities, axis=1, kind="stable")[:, :depth].tolist()
    return nearest
