"""Estimate the accuracy of the live classifier on the catalog from the random audit."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from sqlalchemy import Connection

from jobs.database.model_versions import read_live_versions
from jobs.database.reviews import count_audit

NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
"""The quantile for two-sided 95 % intervals."""
MAX_AUDITED = 4_000


@dataclass(frozen=True)
class Estimate:
    """A share from 0 to 1 with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class ReviewedAccuracy:
    """The accuracy on a classifier's random audit. ``audited`` images have an answer, ``skipped`` images do not."""

    classifier_version_id: int
    audited: int
    skipped: int
    audit: Estimate | None


def read_reviewed_accuracy(connection: Connection) -> ReviewedAccuracy | None:
    """Return the accuracy of the live classifier, or None if none is live. An image's latest label is the truth."""
    version = read_live_versions(connection).classifier
    if version is None:
        return None
    counts = count_audit(connection, version, MAX_AUDITED)
    audit = estimate_share(counts.correct, counts.answered) if counts.answered else None
    return ReviewedAccuracy(version, counts.answered, counts.skipped, audit)


def estimate_share(correct: int, total: int) -> Estimate:
    """Return Wilson's score interval (1927), which is valid even with few answers or if all are correct."""
    # Not computed with scipy, which would cost Airflow's API server 40 MB.
    square = NORMAL_QUANTILE**2
    center = correct + square / 2
    margin = NORMAL_QUANTILE * math.sqrt(correct * (total - correct) / total + square / 4)
    low, high = ((center + sign * margin) / (total + square) for sign in (-1, 1))
    return Estimate(correct / total, max(low, 0.0), min(high, 1.0))
