"""Measure drift: compare the predictions of a run with the reference of the live classifier."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from jobs.database.drift_references import (
    DriftReference,
    count_run_predictions,
    read_drift_reference,
    settle_drift_reference,
)
from jobs.settings import RunSettings

FALSE_ALARM_RATE = 0.001
"""Probability that a run without drift is flagged, for each of the two indices."""

SMOOTHING = 0.5
"""Added to every count, because the logarithm of an empty bin is undefined (Krichevsky-Trofimov estimator)."""


@dataclass(frozen=True)
class DriftReport:
    """Population stability indices of a run's predictions. They are None if there are too few images."""

    images: int
    category_psi: float | None
    confidence_psi: float | None
    is_flagged: bool
    sentence: str


def measure_drift(
    connection: Connection, run_id: str, classifier_version_id: int | None, settings: RunSettings
) -> DriftReport | None:
    """Compare a run with the reference of its classifier. Return None if there is no reference.

    The first run with enough images is compared with the test images that the classifier was promoted on. Later runs
    are compared with the catalog. Only new predictions of the run count, not labels or copied tags.
    """
    reference = read_drift_reference(connection, classifier_version_id) if classifier_version_id else None
    if classifier_version_id is None or reference is None:
        return None
    report = compare_counts(reference, count_run_predictions(connection, run_id), settings)
    if report.category_psi is not None:
        settle_drift_reference(connection, classifier_version_id)
    return report


def compare_counts(reference: DriftReference, seen: DriftReference, settings: RunSettings) -> DriftReport:
    """Compare counts with a reference. Flag drift if an index exceeds both the limit and what chance explains."""
    images = sum(seen.confidence_counts)
    if images < settings.drift_min_images:
        needed = f"at least {settings.drift_min_images} are needed"
        too_few = f"{images} newly tagged images are too few to measure drift: {needed}"
        return DriftReport(images, None, None, False, too_few)
    categories = _align(reference.category_counts, seen.category_counts)
    confidences = (reference.confidence_counts, seen.confidence_counts)
    category_psi, confidence_psi = compute_psi(*categories), compute_psi(*confidences)
    category_bound, confidence_bound = (
        max(settings.drift_limit, bound_chance(*histograms)) for histograms in (categories, confidences)
    )
    is_flagged = category_psi > category_bound or confidence_psi > confidence_bound
    return DriftReport(
        images,
        round(category_psi, 4),
        round(confidence_psi, 4),
        is_flagged,
        f"the {images} newly tagged images {'differ from' if is_flagged else 'match'} the reference of the classifier: "
        f"population stability index {category_psi:.3f} for categories (limit {category_bound:.3g}), "
        f"{confidence_psi:.3f} for confidence (limit {confidence_bound:.3g})",
    )


def compute_psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the population stability index of two histograms over the same bins. It is 0 if they are equal.

    The index is the sum of (a - e) ln(a / e) over the shares of the bins (Jeffreys' symmetric divergence) and has no
    upper bound. Rule of thumb: below 0.1 nothing changed, above 0.25 the change is large (Siddiqi, Credit Risk
    Scorecards, 2006).
    """
    expected_shares, actual_shares = _smooth(expected), _smooth(actual)
    return sum((a - e) * math.log(a / e) for e, a in zip(expected_shares, actual_shares, strict=True))


def rank_shifted_categories(reference: DriftReference, seen: DriftReference) -> list[tuple[str, float]]:
    """Return each category with its contribution to the index, largest contribution first."""
    names = sorted(reference.category_counts.keys() | seen.category_counts.keys())
    expected, actual = (_smooth(counts) for counts in _align(reference.category_counts, seen.category_counts))
    parts = [(a - e) * math.log(a / e) for e, a in zip(expected, actual, strict=True)]
    return sorted(zip(names, parts, strict=True), key=lambda part: (-part[1], part[0]))


def bound_chance(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the index that two samples of the same distribution exceed with probability `FALSE_ALARM_RATE`.

    The index is distributed as (1 / n + 1 / m) times a chi-square variable with (bins - 1) degrees of freedom
    (Yurdakul and Naranjo, Statistical properties of the population stability index, 2020).
    """
    # Imported here because it takes half a second, and most calls end before they need it.
    from scipy.stats import chi2

    scale = 1 / max(sum(expected), 1) + 1 / max(sum(actual), 1)
    return scale * float(chi2.ppf(1 - FALSE_ALARM_RATE, len(expected) - 1))


def _smooth(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / total for count in counts]


def _align(expected: Mapping[str, int], actual: Mapping[str, int]) -> tuple[list[int], list[int]]:
    names = sorted(expected.keys() | actual.keys())
    return [expected.get(name, 0) for name in names], [actual.get(name, 0) for name in names]
