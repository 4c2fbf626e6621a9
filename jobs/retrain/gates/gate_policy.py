"""Read the bounds of the gates: the defaults in ``policy.toml``, and the overrides in CATALOG_GATE_POLICY."""

import math
import tomllib
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import ConfigurationError
from jobs.retrain.gates.paired_test import CONFIDENCE
from jobs.setting_types import Count, Share

DEFAULTS = Path(__file__).with_name("policy.toml")

# With a bound of infinity or NaN, every candidate or none would pass.
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# No test set is large enough to prove a margin of 0 or an accuracy of 1, and an accuracy of 0 needs no proof.
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class GatePolicy(BaseModel):
    """The bounds of the gates; ``policy.toml`` explains each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy_resolution: OpenShare
    min_category_test_images: Count
    max_snapshot_age_days: Amount

    min_accuracy: OpenShare
    min_top_3_accuracy: Share
    min_category_recall: Share
    max_calibration_error: Share
    not_worse_margin: OpenShare
    max_changed_share: Share

    min_clip_score: Annotated[float, Field(ge=-100, le=100)]
    recall_margin: OpenShare

    max_lost_accuracy: Share
    min_agreement: Share
    min_mean_cosine: Share
    min_worst_cosine: Share
    min_neighbor_recall: Share
    max_lost_recall: Share

    max_latency_milliseconds: Amount
    min_images_per_second: Amount
    max_failed_share: Share
    max_memory_bytes: Count
    max_output_difference: Amount

    @property
    def min_test_images(self) -> int:
        """Return the test images needed to distinguish ``min_accuracy`` from one lower by ``accuracy_resolution``.

        This is the smallest n whose one-sided 95 % error of the share a, 1.645 sqrt(a (1 - a) / n), does not exceed the
        resolution r: n = 1.645^2 a (1 - a) / r^2, which is 174 by default.
        """
        error = NormalDist().inv_cdf(CONFIDENCE) / self.accuracy_resolution
        return math.ceil(error**2 * self.min_accuracy * (1 - self.min_accuracy))


def load_gate_policy(override: Path | None = None) -> GatePolicy:
    """Read the defaults, and apply the bounds in an override file.

    Raises:
        ConfigurationError: the file cannot be read, sets an unknown bound, or a value is out of range.
    """
    bounds = _read(DEFAULTS)
    setting = f"CATALOG_GATE_POLICY={override}"
    try:
        return GatePolicy.model_validate(bounds | (_read(override) if override else {}))
    except OSError as error:
        raise ConfigurationError(f"{setting} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting} is not valid TOML: {error}") from None
    except ValidationError as error:
        wrong = [f"{found['loc'][0]}: {_describe(found)}" for found in error.errors()]
        raise ConfigurationError(f"{setting}: {'; '.join(wrong)}. {DEFAULTS.name} lists all bounds") from None


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _describe(error: Any) -> str:
    return "unknown bound" if error["type"] == "extra_forbidden" else str(error["msg"])
