"""Bound the difference between two models that were tested on the same photos (Tango, 1998)."""

import math
from statistics import NormalDist

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes

CONFIDENCE = 0.95


LEAST_DIFFERENCE = -1 + 1e-9
"""Just above -1, where the score has no finite value."""


def bound_difference(paired: PairedOutcomes, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower confidence bound of accuracy(candidate) - accuracy(champion), from -1 to 1.

    Tango's score interval for paired shares (1998, Statistics in Medicine 17, 891-908). Unlike the interval by the
    observed variance it stays sound where the two disagree on little or nothing: two models that agree on all of 400
    images may still differ by 0.7 points.

    Raises:
        ValueError: nothing was asked, or a count is negative.
    """
    # Here: the pages of Airflow's API server know the gates' names, and shall not pay for scipy.
    from scipy.optimize import brentq

    counts = (paired.both, paired.only_candidate, paired.only_champion, paired.neither)
    asked = sum(counts)
    if min(counts) < 0 or asked == 0:
        raise ValueError("the counts of a paired comparison must not be negative, nor all be 0")
    observed = (paired.only_candidate - paired.only_champion) / asked
    if observed <= LEAST_DIFFERENCE:
        return -1.0
    quantile = NormalDist().inv_cdf(confidence)
    # The score falls as the supposed difference grows, to 0 at the observed one.
    return float(brentq(lambda supposed: _score(paired, asked, supposed) - quantile, LEAST_DIFFERENCE, observed))


def _score(paired: PairedOutcomes, asked: int, supposed: float) -> float:
    """How many standard errors the observed difference lies above a supposed one.

    The standard error is that of the likeliest shares among those with the supposed difference; they follow from the
    share that only the champion gets right, the larger root of a quadratic.
    """
    gained, lost = paired.only_candidate, paired.only_champion
    above = gained - lost - asked * supposed
    if above <= 0:
        return 0.0
    linear = (2 * asked - gained + lost) * supposed - gained - lost
    constant = -lost * supposed * (1 - supposed)
    only_champion = (math.sqrt(max(0.0, linear**2 - 8 * asked * constant)) - linear) / (4 * asked)
    variance = asked * (2 * only_champion + supposed * (1 - supposed))
    return above / math.sqrt(variance) if variance > 0 else math.inf
