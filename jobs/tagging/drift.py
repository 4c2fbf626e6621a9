"""Whether the photos of a run look like those that the live classifier was accepted on, by its own answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from jobs.database.drift_references import DriftReference, count_run_answers, read_drift_reference
from jobs.settings import Settings

IMAGES_PER_BIN = 10
"""Where nothing has changed, the index of B bins and n images is (B - 1) / n on average, by chance alone."""

SMOOTHING = 0.5
"""What is added to every count, so that an empty bin has a logarithm (Krichevsky and Trofimov's estimator)."""


@dataclass(frozen=True)
class DriftSettings:
    """The index above which a run is flagged, and the images that it takes to tell."""

    limit: float = 0.25
    min_images: int = 200

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The part of the configuration that concerns this stage."""
        return cls(settings.drift_limit, settings.drift_min_images)


@dataclass(frozen=True)
class DriftReport:
    """Population stability indices of a run's answers; None where there are too few images to tell."""

    images: int
    category_psi: float | None
    confidence_psi: float | None
    is_flagged: bool
    sentence: str


def measure_drift(
    connection: Connection, run_id: str, classifier_version_id: int, settings: DriftSettings
) -> DriftReport | None:
    """Compare a run with the reference of its classifier; None where that was never measured.

    Only what the classifier answered itself in this run counts: labels of humans are no answers, and copies of
    known bytes are no news.
    """
    reference = read_drift_reference(connection, classifier_version_id)
    if reference is None:
        return None
    return compare_answers(reference, count_run_answers(connection, run_id), settings)


def compare_answers(reference: DriftReference, seen: DriftReference, settings: DriftSettings) -> DriftReport:
    """Judge answers by a reference."""
    images = sum(seen.confidence_counts)
    categories = reference.category_counts.keys() | seen.category_counts.keys()
    wanted = max(settings.min_images, IMAGES_PER_BIN * max(len(categories), len(seen.confidence_counts)))
    if images < wanted:
        return DriftReport(
            images, None, None, False, f"{images} newly tagged images are too few to tell: it takes {wanted}"
        )
    category_psi = compute_psi(*_align(reference.category_counts, seen.category_counts))
    confidence_psi = compute_psi(reference.confidence_counts, seen.confidence_counts)
    is_flagged = max(category_psi, confidence_psi) > settings.limit
    return DriftReport(
        images,
        round(category_psi, 4),
        round(confidence_psi, 4),
        is_flagged,
        f"the {images} newly tagged images {'differ from' if is_flagged else 'are like'} those that the classifier was "
        f"accepted on: population stability index {category_psi:.3f} of categories, {confidence_psi:.3f} of "
        f"confidence, limit {settings.limit:g}",
    )


def compute_psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """The population stability index of two histograms over the same bins: 0 if alike, without an upper bound.

    The sum of (a - e) ln(a / e) over the shares of the bins, Jeffreys' symmetric divergence; as a rule of thumb below
    0.1 nothing has changed, and above 0.25 much (Siddiqi, Credit Risk Scorecards, 2006).
    """
    expected_shares, actual_shares = _smooth(expected), _smooth(actual)
    return sum((a - e) * math.log(a / e) for e, a in zip(expected_shares, actual_shares, strict=True))


def _smooth(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / total for count in counts]


def _align(expected: Mapping[str, int], actual: Mapping[str, int]) -> tuple[list[int], list[int]]:
    names = sorted(expected.keys() | actual.keys())
    return [expected.get(name, 0) for name in names], [actual.get(name, 0) for name in names]
