"""What a candidate must show before it may go live: every threshold of the gates, each a setting."""

import math
from statistics import NormalDist
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import ConfigurationError
from jobs.retrain.gates.paired_test import CONFIDENCE
from jobs.settings import Share, read_variables

ENVIRONMENT_PREFIX = "CATALOG_GATE_"

# Infinity and NaN would let everything through, or nothing.
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# A margin of 0 cannot be shown on any number of images, and a claim of 0 or 1 needs no images or infinitely many.
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class GatePolicy(BaseModel):
    """The thresholds, from variables of the prefix ``CATALOG_GATE_``; shares are from 0 to 1.

    Accuracies count by their lower bound of 95 % confidence, so that a lucky test set does not pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    # The data set

    accuracy_resolution: OpenShare = 0.05
    """So much below ``min_accuracy`` must be told from it by the test set: from this follows its least size."""
    min_category_test_images: Annotated[int, Field(ge=1)] = 5
    """Test images of the rarest category; the recall of fewer says nothing."""
    max_snapshot_age_days: Amount = 90.0
    """Labels older than this no longer show what the shop sells."""

    # The classifier

    min_accuracy: OpenShare = 0.80
    """Share of test images with the right category."""
    min_top_3_accuracy: Share = 0.90
    """Share of test images whose category is among the three likeliest."""
    min_class_recall: Share = 0.60
    """Share of the images of a category that it recognises; of every category."""
    max_calibration_error: Share = 0.05
    """Expected calibration error: by how much confidence and accuracy differ on average."""
    not_worse_margin: OpenShare = 0.025
    """By so much less accuracy than the champion's is no loss; more must be ruled out with 95 % confidence.

    Not 0.03: of candidates that are 3 points worse at most 5 % shall pass, and with a margin of 0.03 it would be 5 %
    by construction. `benchmarks.training.paired_gate` counts them.
    """
    max_changed_share: Share = 0.20
    """Share of the live catalog's images that may change their category at once."""

    # The encoder

    min_clip_score: Annotated[float, Field(ge=-100, le=100)] = 30.0
    """100 times the mean cosine of a test photo and its text."""
    recall_margin: OpenShare = 0.05
    """As ``not_worse_margin``, of recall@1, 5 and 10 from text to photo.

    Wider, because two encoders disagree on many more questions than two classifiers do.
    """

    # What serving it faster than in float32 may cost

    max_lost_accuracy: Share = 0.005
    """Share of the test images, of a classifier."""
    min_agreement: Share = 0.99
    """Share of the test images of which float32 is surer than 0.5, of a classifier: the same first answer."""
    min_mean_cosine: Share = 0.99
    """Of an encoder's vectors and those in float32, on average."""
    min_worst_cosine: Share = 0.97
    """The same, of every test photo."""
    min_neighbour_recall: Share = 0.95
    """Share of each photo's ten nearest that stay among the ten nearest."""
    max_lost_recall: Share = 0.01
    """Of recall@5 from text to photo."""

    # Serving, both kinds

    max_latency_milliseconds: Amount = 200.0
    """Mean time of one image alone."""
    min_images_per_second: Amount = 100.0
    """Of the classifier, in batches."""
    max_failed_share: Share = 0.01
    """Share of images that get no answer, or one that is no number."""
    max_memory_bytes: Annotated[int, Field(gt=0)] = 2_000_000_000
    """The most memory that the serving process held."""
    max_output_difference: Amount = 1e-3
    """By how much a probability, or an element of a vector, may differ from what the model answered in training.

    Both are computed in float32: another order of summation moves them by about 1e-5, while other preprocessing or
    another order of categories moves them by 0.01 and more.
    """

    @property
    def min_test_images(self) -> int:
        """How many test images it takes to tell ``min_accuracy`` from ``accuracy_resolution`` less.

        The smallest n whose one-sided 95 % error of the share a, 1.645 sqrt(a (1 - a) / n), is no more than the
        resolution r: n = 1.645^2 a (1 - a) / r^2, which is 174 by default.
        """
        error = NormalDist().inv_cdf(CONFIDENCE) / self.accuracy_resolution
        return math.ceil(error**2 * self.min_accuracy * (1 - self.min_accuracy))


def load_gate_policy() -> GatePolicy:
    """Read and check the thresholds.

    Raises:
        ConfigurationError: one of them is wrong, or a variable names none; the message names each.
    """
    variables = read_variables()
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper(): name for name in GatePolicy.model_fields}
    # A threshold under a misspelt name would silently not count.
    unknown = sorted(name for name in variables if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)} is no threshold of the gates (see .env.example)")
    try:
        return GatePolicy.model_validate(
            {field: variables[name] for name, field in known.items() if variables.get(name)}
        )
    except ValidationError as error:
        faults = [f"{ENVIRONMENT_PREFIX}{fault['loc'][0]}".upper() + f": {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError(f"{'; '.join(faults)} (see .env.example)") from None
