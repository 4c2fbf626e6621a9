"""What an evaluation measures: the values that gates decide on, as one record that is stored as JSON.

A value that could not be measured is None, and the gates fail on it. Shares and accuracies are from 0 to 1.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence lies in one bin: their number, mean confidence and share that was right."""

    lower: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassifierScores:
    """One classifier on the test images.

    ``confusion`` has a row for each true category and a column for each answer, in the order of ``categories``; a
    category that the model does not know is a column of zeros. ``temperature`` is None where the model carries none.
    """

    images: int
    correct: int
    top_3_correct: int
    categories: list[str]
    images_by_category: dict[str, int]
    recall_by_category: dict[str, float | None]
    confusion: list[list[int]]
    expected_calibration_error: float | None
    reliability: list[ReliabilityBin]
    temperature: float | None


@dataclass(frozen=True)
class PairedOutcomes:
    """The same images asked of both: how often both, one alone, or none was right."""

    both: int
    only_candidate: int
    only_champion: int
    neither: int


@dataclass(frozen=True)
class EncoderScores:
    """One encoder on photos with texts.

    ``clip_score`` is 100 times the mean cosine of a photo and its text, ``loss`` the contrastive loss and
    ``in_batch_accuracy`` the share of photos whose own text is the nearest, both in batches of 32. Recall and mean
    reciprocal rank are from text to image among all photos, where a photo with the very same text counts as found.
    """

    images: int
    loss: float | None
    clip_score: float | None
    in_batch_accuracy: float | None
    recall_at_1: float | None
    recall_at_5: float | None
    recall_at_10: float | None
    mean_reciprocal_rank: float | None


@dataclass(frozen=True)
class Serving:
    """The stored artifact, loaded and asked in a process of its own."""

    images: int
    mean_latency_milliseconds: float | None
    images_per_second: float | None
    failed_share: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Servable:
    """The artifact read back from the bucket, compared with what the model answered when it was trained.

    ``largest_difference`` is that of a probability, by the category's name, or of a vector's element; ``fault`` says
    what went wrong.
    """

    is_checksum_right: bool
    has_labels: bool
    has_preprocessing: bool
    largest_difference: float | None
    fault: str | None


@dataclass(frozen=True)
class DataCheck:
    """The snapshot, measured on its photos themselves.

    The ``shared_`` numbers count test images of which train or validation has the same bytes, the same group, or a
    near duplicate.
    """

    train_images: int
    validation_images: int
    test_images: int
    fewest_test_images_of_a_category: int
    shared_contents: int | None
    shared_groups: int | None
    shared_near_duplicates: int | None
    age_days: float | None


@dataclass(frozen=True)
class BlastRadius:
    """The candidate on a sample of the live catalog: how many images would change their category."""

    images: int
    changed: int


@dataclass(frozen=True)
class Fidelity:
    """A model as it is served, beside itself in float32, on the same test images; None is what its kind has not got.

    ``lost_accuracy`` is the share of images that only float32 got right, less those that only it did not; ``agreement``
    that of the same first answer, where float32 is surer than 0.5; ``neighbour_recall`` that of the ten nearest photos
    that stay among them; ``lost_recall_at_5`` what finding a photo by its text loses.
    """

    images: int
    lost_accuracy: float | None = None
    agreement: float | None = None
    mean_cosine: float | None = None
    worst_cosine: float | None = None
    neighbour_recall: float | None = None
    lost_recall_at_5: float | None = None


@dataclass(frozen=True)
class Served:
    """How a candidate is served, and what that costs; no ``fidelity`` where it is the checkpoint itself in float32."""

    engine: str
    precision: str
    fidelity: Fidelity | None


@dataclass(frozen=True)
class EvaluationMetrics:
    """All that was measured of a candidate, beside the champion where there is one."""

    data: DataCheck | None = None
    servable: Servable | None = None
    served: Served | None = None
    serving: Serving | None = None
    classifier: ClassifierScores | None = None
    champion_classifier: ClassifierScores | None = None
    paired: PairedOutcomes | None = None
    blast_radius: BlastRadius | None = None
    encoder: EncoderScores | None = None
    encoder_on_train: EncoderScores | None = None
    champion_encoder: EncoderScores | None = None
    paired_recall: dict[str, PairedOutcomes] | None = None
    """By the name of the recall: recall_at_1, recall_at_5, recall_at_10."""

    def as_record(self) -> dict[str, Any]:
        """The value as stored: what is not a number is null, since JSON has no word for it."""
        record: dict[str, Any] = _without_nan(asdict(self))
        return record

    @staticmethod
    def from_record(record: dict[str, Any]) -> "EvaluationMetrics":
        """Read a stored value; raises pydantic.ValidationError where it has another form."""
        return TypeAdapter(EvaluationMetrics).validate_python(record)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
