"""Bound the difference in accuracy of two models on the same images (Tango, 1998)."""

import math
from dataclasses import astuple
from statistics import NormalDist

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes

CONFIDENCE = 0.95
MIN_DIFFERENCE = -1 + 1e-9
"""Just above -1, where the score is infinite."""


def bound_difference(paired: PairedOutcomes, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided lower confidence bound of accuracy(candidate) - accuracy(champion), from -1 to 1.

    Tango's score interval for paired proportions (1998, Statistics in Medicine 17, 891-908). Unlike the Wald interval,
    it remains valid if the models disagree on few images or none: two models that agree on all of 400 images may still
    differ by 0.7 points.

    Raises:
        ValueError: all counts are 0, or one is negative.
    """
    # Imported here because the pages of Airflow's API server import the gates but never call them.
    from scipy.optimize import brentq

    counts = astuple(paired)
    total = sum(counts)
    if min(counts) < 0 or total == 0:
        raise ValueError(f"counts of paired outcomes must not be negative, nor all 0: {counts}")
    observed = (paired.only_candidate - paired.only_champion) / total
    if observed <= MIN_DIFFERENCE:
        return -1.0
    quantile = NormalDist().inv_cdf(confidence)
    # The score decreases to 0 as the hypothetical difference approaches the observed one.
    return float(brentq(lambda supposed: _score(paired, total, supposed) - quantile, MIN_DIFFERENCE, observed))


def _score(paired: PairedOutcomes, total: int, supposed: float) -> float:
    """Return the number of standard errors by which the observed difference exceeds a hypothetical one.

    The standard error uses the maximum likelihood estimate under the hypothetical difference. The estimate of the share
    that only the champion gets right is the larger root of a quadratic equation.
    """
    gained, lost = paired.only_candidate, paired.only_champion
    above = gained - lost - total * supposed
    if above <= 0:
        return 0.0
    linear = (2 * total - gained + lost) * supposed - gained - lost
    constant = -lost * supposed * (1 - supposed)
    only_champion = (math.sqrt(max(0.0, linear**2 - 8 * total * constant)) - linear) / (4 * total)
    variance = total * (2 * only_champion + supposed * (1 - supposed))
    return above / math.sqrt(variance) if variance > 0 else math.inf
