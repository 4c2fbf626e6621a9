"""Define what an evaluation stores: the metrics for the gates, and the lists in the files next to them.

A value that could not be measured is None, and its gate fails. Shares and accuracies range from 0 to 1.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence is in one bin: their number, mean confidence and accuracy."""

    lower: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassifierScores:
    """Scores of a classifier on the test images.

    ``confusion`` has a row for each true category and a column for each predicted one, in the order of ``categories``.
    A category that the model does not know is a column of zeros. ``temperature`` is None if the model has none.
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
    """Number of images or texts that both models, only one of them, or neither gets right."""

    both: int
    only_candidate: int
    only_champion: int
    neither: int


@dataclass(frozen=True)
class EncoderScores:
    """Scores of an encoder on images with texts.

    ``clip_score`` is 100 times the mean cosine of an image and its text. ``loss`` is the contrastive loss, and
    ``in_batch_accuracy`` the share of images whose nearest text is their own, both in batches of 32. Recall and mean
    reciprocal rank are text to image over all images; any image with the same text counts as a match.
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
class ServingMetrics:
    """Speed, memory and failures of the stored artifact, measured in a separate process."""

    images: int
    mean_latency_milliseconds: float | None
    images_per_second: float | None
    failed_share: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class ArtifactCheck:
    """Comparison of the artifact in the bucket with the outputs recorded when the model was trained.

    ``largest_difference`` is the largest difference in any probability, matched by category name, or in any vector
    element. ``error`` lists everything that is wrong with the artifact.
    """

    is_checksum_right: bool
    has_labels: bool
    has_preprocessing: bool
    largest_difference: float | None
    error: str | None


@dataclass(frozen=True)
class DataCheck:
    """Size and age of the snapshot, and leaks measured on the bytes of its images.

    The ``shared_`` fields count test images that share bytes or a group with train or validation, or have a near
    duplicate there.
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
    """Number of images in a sample of the live catalog, and how many of them would change their category."""

    images: int
    changed: int


@dataclass(frozen=True)
class Fidelity:
    """Differences between a build and the checkpoint in float32 on the same test images.

    The first two metrics apply to classifiers, the others to encoders. Those that do not apply are None.
    ``lost_accuracy`` is the accuracy in float32 minus the accuracy of the build. ``agreement`` is the share of equal
    predictions among images with a confidence above 0.5 in float32. ``neighbor_recall`` is the share of each image's
    ten nearest neighbors in float32 that the build also finds. ``lost_recall_at_5`` is the lost text-to-image recall.
    """

    images: int
    lost_accuracy: float | None = None
    agreement: float | None = None
    mean_cosine: float | None = None
    worst_cosine: float | None = None
    neighbor_recall: float | None = None
    lost_recall_at_5: float | None = None


@dataclass(frozen=True)
class ServedBuild:
    """Engine, precision and fidelity of a candidate. ``fidelity`` is None for the checkpoint itself in float32."""

    engine: str
    precision: str
    fidelity: Fidelity | None


@dataclass(frozen=True)
class EvaluationMetrics:
    """All metrics of a candidate, and of the champion if there is one."""

    data: DataCheck | None = None
    artifact: ArtifactCheck | None = None
    build: ServedBuild | None = None
    serving: ServingMetrics | None = None
    classifier: ClassifierScores | None = None
    champion_classifier: ClassifierScores | None = None
    paired: PairedOutcomes | None = None
    blast_radius: BlastRadius | None = None
    encoder: EncoderScores | None = None
    encoder_on_train: EncoderScores | None = None
    champion_encoder: EncoderScores | None = None
    paired_recall: dict[str, PairedOutcomes] | None = None
    """By metric: recall_at_1, recall_at_5, recall_at_10."""

    def as_record(self) -> dict[str, Any]:
        """Convert to JSON types. NaN and infinity become null, since JSON does not have them."""
        record: dict[str, Any] = _without_nan(asdict(self))
        return record

    @staticmethod
    def from_record(record: dict[str, Any]) -> "EvaluationMetrics":
        """Parse a stored record. Raises pydantic.ValidationError if it does not match this class."""
        return TypeAdapter(EvaluationMetrics).validate_python(record)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FLIPS_FILE = "flips.json"
LABEL_AUDIT_FILE = "label_audit.json"
PREDICTIONS_FILE = "predictions.parquet"
PAGE_FILE = "page.html"
"""Written by the gates, after the evaluation."""
MAX_THUMBNAILS = 40
"""Only the first entries of a list have thumbnails, to keep the page small."""


@dataclass(frozen=True)
class Flip:
    """A live image whose category the candidate would change. ``thumbnail`` is a JPEG in base64."""

    image_id: int
    object_key: str
    product_id: str
    old_category: str
    old_confidence: float
    new_category: str
    new_confidence: float
    thumbnail: str | None


@dataclass(frozen=True)
class LabelSuspect:
    """A label that is likely wrong.

    ``score`` is the candidate's confidence in the given label, 0 to 1; the lower, the more likely the label is wrong.
    ``thumbnail`` is a JPEG in base64.
    """

    content_hash: str
    given_label: str
    suggested_label: str
    score: float
    thumbnail: str | None


def encode_list(entries: Sequence[Flip] | Sequence[LabelSuspect]) -> bytes:
    """Encode flips or suspects as JSON."""
    return json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, allow_nan=False).encode()


def decode_flips(content: bytes) -> list[Flip]:
    """Decode `FLIPS_FILE`, sorted by falling confidence of the candidate."""
    return TypeAdapter(list[Flip]).validate_json(content)


def decode_label_suspects(content: bytes) -> list[LabelSuspect]:
    """Decode `LABEL_AUDIT_FILE`, sorted with the most likely errors first."""
    return TypeAdapter(list[LabelSuspect]).validate_json(content)
