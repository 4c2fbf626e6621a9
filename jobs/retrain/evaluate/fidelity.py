"""Measure how closely a build answers like the checkpoint it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError
from jobs.models.image_model import EngineName, ModelBuild, Precision, read_build
from jobs.retrain.evaluate.evaluation_record import Fidelity, Served
from jobs.retrain.evaluate.scores import ClassifierAnswers, rank_photos

FIDELITY_FILE = "fidelity.json"


@dataclass(frozen=True)
class Attempt:
    """One way to serve the model: what it costs, and which criteria of the fidelity gate it missed.

    ``int8_share`` and ``float_blocks`` are those of its `ModelBuild`.
    """

    engine: EngineName
    precision: Precision
    fidelity: Fidelity
    losses: tuple[str, ...]
    int8_share: float | None = None
    float_blocks: tuple[str, ...] = ()

    def is_of(self, build: ModelBuild) -> bool:
        """Whether this is the way in which a folder is served."""
        way = build.engine, build.precision, build.float_blocks
        return (self.engine, self.precision, self.float_blocks) == way


def write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    """Store what was tried with an artifact, in that order."""
    (folder / FIDELITY_FILE).write_bytes(TypeAdapter(list[Attempt]).dump_json(list(attempts), indent=1))


def read_served(folder: Path) -> Served | None:
    """How an artifact is served and what that costs; None where no precision was chosen for it.

    Raises:
        PermanentError: a file of the artifact has another form.
    """
    build = read_build(folder)
    if build is None:
        return None
    file = folder / FIDELITY_FILE
    try:
        attempts = TypeAdapter(list[Attempt]).validate_json(file.read_bytes()) if file.is_file() else []
    except ValidationError as error:
        raise PermanentError(f"{file} has another form ({error.errors()[0]['msg']})") from None
    costs = [attempt.fidelity for attempt in attempts if attempt.is_of(build)]
    return Served(build.engine, build.precision, costs[0] if costs else None)


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
