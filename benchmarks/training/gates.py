"""Measure how often two gates accept a candidate whose true quality is known.

    python -m benchmarks.training.gates
    python -m benchmarks.training.gates --draws 200

The paired gate compares two models on the same images. Two models that were trained on nearly the same images tend to
make the same errors, so their outcomes are correlated: each image has a latent score per model. The scores are normally
distributed, with the given correlation between the models. A model is right if its score exceeds the threshold that
gives the model's accuracy.

The calibration gate has a bound for the measured error. On few images, the measured error is larger than the true one,
because every bin deviates by chance. Confidences are drawn from a beta distribution with a mean of 0.86, which
resembles the confidences on real images. An image is classified correctly with a probability of its confidence minus
the true error.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.stats import multivariate_normal, norm

from benchmarks.results import Row, format_share, publish
from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.evaluate.scores import bin_confidence, measure_calibration_error
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.paired_test import bound_difference

PAIRED_IMAGES = (400, 750)
CHAMPION_ACCURACIES = (0.85, 0.90, 0.95)
CORRELATIONS = (0.5, 0.8, 0.95)
DIFFERENCES = (-0.03, 0.0, 0.03)
CALIBRATION_IMAGES = (174, 333, 736)
CALIBRATION_ERRORS = (0.10, 0.05, 0.0)
CONFIDENCE = (4.0, 0.6)
BINS = 10
COLUMNS = ("worse accepted", "borderline accepted", "better accepted")


@dataclass(frozen=True)
class Setting:
    """Two models and the size of their test sets. ``difference`` is the candidate's advantage in accuracy."""

    images: int
    champion_accuracy: float
    correlation: float
    difference: float


def main() -> None:
    """Simulate both gates and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    draws: int = parser.parse_args().draws
    policy = load_gate_policy()
    margin, bound = policy.not_worse_margin, policy.max_calibration_error
    publish(
        "How often gates accept a candidate",
        f"Simulated test sets, {draws:,} per setting: the non-inferiority gate with a margin of {margin} (candidate 3 "
        "points worse, equal, or 3 points better; the range over 18 settings of accuracy, correlation and test "
        f"images), and the calibration gate at {bound} with {BINS} bins (true calibration error 0.10, 0.05, or 0; "
        "accuracy of 0.86).",
        [_measure_paired_gate(draws, margin), *_measure_calibration_gate(draws, bound)],
        targets="at most 5 % of the worse candidates accepted",
        packages=["numpy", "scipy"],
    )


def _measure_paired_gate(draws: int, margin: float) -> Row:
    row = {"gate": "not worse than the champion", "test images": ", ".join(map(str, PAIRED_IMAGES))}
    settings = list(product(PAIRED_IMAGES, CHAMPION_ACCURACIES, CORRELATIONS))
    for number, (column, difference) in enumerate(zip(COLUMNS, DIFFERENCES, strict=True)):
        shares = [
            simulate(Setting(*setting, difference), draws, margin, [number, place])
            for place, setting in enumerate(settings)
        ]
        row[column] = f"{format_share(min(shares))} to {format_share(max(shares))}"
    return row


def simulate(setting: Setting, draws: int, margin: float, seed: Sequence[int]) -> float:
    """Draw test sets, and return the share of them for which the gate accepts the candidate."""
    counts = np.random.default_rng(seed).multinomial(setting.images, share_outcomes(setting), size=draws)
    return sum(_bound(*map(int, row)) > -margin for row in counts) / draws


def share_outcomes(setting: Setting) -> tuple[float, float, float, float]:
    """Return the true shares of images that both, only the candidate, only the champion, or neither get right."""
    champion, candidate = setting.champion_accuracy, setting.champion_accuracy + setting.difference
    covariance = [[1, setting.correlation], [setting.correlation, 1]]
    both = float(multivariate_normal([0, 0], covariance).cdf(norm.ppf([candidate, champion])))
    return both, candidate - both, champion - both, 1 - candidate - champion + both


@cache
def _bound(both: int, only_candidate: int, only_champion: int, neither: int) -> float:
    return bound_difference(PairedOutcomes(both, only_candidate, only_champion, neither))


def _measure_calibration_gate(draws: int, bound: float) -> Iterator[Row]:
    random = np.random.default_rng(0)
    for images in CALIBRATION_IMAGES:
        row = {"gate": "calibration error", "test images": str(images)}
        for column, true_error in zip(COLUMNS, CALIBRATION_ERRORS, strict=True):
            errors = np.array([_draw_error(random, images, true_error) for _ in range(draws)])
            row[column] = format_share(float(np.mean(errors <= bound)))
        yield row


def _draw_error(random: np.random.Generator, images: int, true_error: float) -> float:
    confidence = random.beta(*CONFIDENCE, images)
    is_right = random.random(images) < confidence - true_error
    error = measure_calibration_error(bin_confidence(confidence, is_right, BINS))
    assert error is not None
    return error


if __name__ == "__main__":
    main()
