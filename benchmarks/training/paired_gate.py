"""How often the paired gate promotes a candidate that is truly worse, equal or better than the champion.

    python -m benchmarks.training.paired_gate
    python -m benchmarks.training.paired_gate --draws 200 --margin 0.03

Both models answer every image right or wrong. Which images they get right is correlated, as with two models trained
on nearly the same photos: an image is right for a model where its hidden ease, normally distributed with the given
correlation between the two models, is high enough for the model's accuracy.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.stats import multivariate_normal, norm

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.paired_test import bound_difference

TEST_IMAGES = (400, 750)
CHAMPION_ACCURACIES = (0.85, 0.90, 0.95)
CORRELATIONS = (0.5, 0.8, 0.95)
DIFFERENCES = (-0.03, 0.0, 0.03)


@dataclass(frozen=True)
class Setting:
    """Two models, and the size of the test sets on which they meet; ``difference`` is the candidate's advantage."""

    images: int
    champion_accuracy: float
    correlation: float
    difference: float


@dataclass(frozen=True)
class PromotedShare:
    """What the gate did in one setting; ``disagreement`` is the share of images that only one of them gets right."""

    setting: Setting
    disagreement: float
    promoted: float


def main() -> None:
    """Print a table, and the worst and the best of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--margin", type=float, default=load_gate_policy().not_worse_margin)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results = list(simulate_all(arguments.draws, arguments.margin, arguments.seed))
    print(f"margin {arguments.margin}, {arguments.draws} test sets for each line")
    print("images  champion  correlation  disagreement  candidate  promoted")
    for result in results:
        setting = result.setting
        print(
            f"{setting.images:6}  {setting.champion_accuracy:8.2f}  {setting.correlation:11.2f}  "
            f"{result.disagreement:12.1%}  {100 * setting.difference:+9.0f}  {result.promoted:8.1%}"
        )
    for difference in DIFFERENCES:
        shares = [result.promoted for result in results if result.setting.difference == difference]
        print(f"{100 * difference:+.0f} points: promoted in {min(shares):.1%} to {max(shares):.1%}")


def simulate_all(draws: int, margin: float, seed: int) -> Iterator[PromotedShare]:
    """Simulate every setting, each from a seed of its own."""
    settings = product(DIFFERENCES, TEST_IMAGES, CHAMPION_ACCURACIES, CORRELATIONS)
    for number, (difference, images, accuracy, correlation) in enumerate(settings):
        yield simulate(Setting(images, accuracy, correlation, difference), draws, margin, [seed, number])


def simulate(setting: Setting, draws: int, margin: float, seed: list[int]) -> PromotedShare:
    """Draw test sets and count those on which the gate promotes the candidate."""
    shares = share_outcomes(setting)
    counts = np.random.default_rng(seed).multinomial(setting.images, shares, size=draws)
    promoted = [_bound(*map(int, row)) > -margin for row in counts]
    return PromotedShare(setting, shares[1] + shares[2], sum(promoted) / draws)


def share_outcomes(setting: Setting) -> tuple[float, float, float, float]:
    """The true shares of images that both, the candidate alone, the champion alone and neither get right."""
    champion, candidate = setting.champion_accuracy, setting.champion_accuracy + setting.difference
    covariance = [[1, setting.correlation], [setting.correlation, 1]]
    both = float(multivariate_normal([0, 0], covariance).cdf(norm.ppf([candidate, champion])))
    return both, candidate - both, champion - both, 1 - candidate - champion + both


@cache
def _bound(both: int, only_candidate: int, only_champion: int, neither: int) -> float:
    return bound_difference(PairedOutcomes(both, only_candidate, only_champion, neither))


if __name__ == "__main__":
    main()
