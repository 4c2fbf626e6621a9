"""Whether the photos of a run look like those that the live classifier was accepted on, by its own answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from jobs.database.drift_references import (
    DriftReference,
    count_run_answers,
    read_drift_reference,
    settle_drift_reference,
)
from jobs.settings import Settings

CHANCE = 0.001
"""How often a run may be flagged though nothing has changed, for each of the two indices."""

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
        return cls(settings.runs.drift_limit, settings.runs.drift_min_images)


@dataclass(frozen=True)
class DriftReport:
    """Population stability indices of a run's answers; None where there are too few images to tell."""

    images: int
    category_psi: float | None
    confidence_psi: float | None
    is_flagged: bool
    sentence: str


def measure_drift(
    connection: Connection, run_id: str, classifier_version_id: int | None, settings: DriftSettings
) -> DriftReport | None:
    """Compare a run with the reference of its classifier; None where that was never measured, or nothing was tagged.

    The first run that is large enough is compared with the test images that the classifier was accepted on, and the
    catalog is the reference from then on. Only what the classifier answered itself in this run counts: labels of
    humans are no answers, and copies of known bytes are no news.
    """
    reference = read_drift_reference(connection, classifier_version_id) if classifier_version_id else None
    if classifier_version_id is None or reference is None:
        return None
    report = compare_answers(reference, count_run_answers(connection, run_id), settings)
    if report.category_psi is not None:
        settle_drift_reference(connection, classifier_version_id)
    return report


def compare_answers(reference: DriftReference, seen: DriftReference, settings: DriftSettings) -> DriftReport:
    """Judge answers by a reference: flagged is what exceeds the limit, and what chance alone hardly ever gives."""
    images = sum(seen.confidence_counts)
    if images < settings.min_images:
        too_few = f"{images} newly tagged images are too few to tell: it takes {settings.min_images}"
        return DriftReport(images, None, None, False, too_few)
    categories = _align(reference.category_counts, seen.category_counts)
    confidences = (reference.confidence_counts, seen.confidence_counts)
    category_psi, confidence_psi = compute_psi(*categories), compute_psi(*confidences)
    category_bound, confidence_bound = (
        max(settings.limit, bound_by_chance(*histograms)) for histograms in (categories, confidences)
    )
    is_flagged = category_psi > category_bound or confidence_psi > confidence_bound
    return DriftReport(
        images,
        round(category_psi, 4),
        round(confidence_psi, 4),
        is_flagged,
        f"the {images} newly tagged images {'differ from' if is_flagged else 'are like'} those that the classifier was "
        f"accepted on: population stability index {category_psi:.3f} of categories (at most {category_bound:.3g}), "
        f"{confidence_psi:.3f} of confidence (at most {confidence_bound:.3g})",
    )


def compute_psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """The population stability index of two histograms over the same bins: 0 if alike, without an upper bound.

    The sum of (a - e) ln(a / e) over the shares of the bins, Jeffreys' symmetric divergence; as a rule of thumb below
    0.1 nothing has changed, and above 0.25 much (Siddiqi, Credit Risk Scorecards, 2006).
    """
    expected_shares, actual_shares = _smooth(expected), _smooth(actual)
    return sum((a - e) * math.log(a / e) for e, a in zip(expected_shares, actual_shares, strict=True))


def rank_shifted_categories(reference: DriftReference, seen: DriftReference) -> list[tuple[str, float]]:
    """Each category with its part of the index, the largest first."""
    names = sorted(reference.category_counts.keys() | seen.category_counts.keys())
    expected, actual = (_smooth(counts) for counts in _align(reference.category_counts, seen.category_counts))
    parts = [(a - e) * math.log(a / e) for e, a in zip(expected, actual, strict=True)]
    return sorted(zip(names, parts, strict=True), key=lambda part: (-part[1], part[0]))


def bound_by_chance(expected: Sequence[int], actual: Sequence[int]) -> float:
    """What the index of two histograms of one and the same distribution exceeds with the probability `CHANCE`.

    It is (1 / n + 1 / m) times a chi-square variable with one degree of freedom less than there are bins (Yurdakul
    and Naranjo, Statistical properties of the population stability index, 2020).
    """
    # Half a second to import, which only runs with a reference and enough images pay for.
    from scipy.stats import chi2

    scale = 1 / max(sum(expected), 1) + 1 / max(sum(actual), 1)
    return scale * float(chi2.ppf(1 - CHANCE, len(expected) - 1))


def _smooth(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / total for count in counts]


def _align(expected: Mapping[str, int], actual: Mapping[str, int]) -> tuple[list[int], list[int]]:
    names = sorted(expected.keys() | actual.keys())
    return [expected.get(name, 0) for name in names], [actual.get(name, 0) for name in names]
