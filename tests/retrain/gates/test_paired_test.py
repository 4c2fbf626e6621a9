import pytest

from benchmarks.training.gates import Setting, share_outcomes, simulate
from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.paired_test import bound_difference

MARGIN = load_gate_policy().not_worse_margin


def test_matches_published_intervals() -> None:
    """Data on airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009).

    Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired binomial proportions",
    give the two-sided 95 % interval by Tango's method as -0.517 to -0.026.
    """
    forward = PairedOutcomes(both=1, only_candidate=1, only_champion=7, neither=12)
    backward = PairedOutcomes(both=1, only_candidate=7, only_champion=1, neither=12)
    assert bound_difference(forward, confidence=0.975) == pytest.approx(-0.517, abs=5e-4)
    assert -bound_difference(backward, confidence=0.975) == pytest.approx(-0.026, abs=5e-4)


def test_models_that_agree_on_all_images_may_still_differ() -> None:
    """Calculated by hand: without discordant pairs the bound is -z^2 / (n + z^2), z = 1.645."""
    bounds = [bound_difference(PairedOutcomes(images, 0, 0, 0)) for images in (40, 400, 4000)]
    assert bounds == pytest.approx([-2.7055 / (images + 2.7055) for images in (40, 400, 4000)], abs=1e-5)


def test_depends_only_on_discordant_pairs_and_total() -> None:
    assert bound_difference(PairedOutcomes(380, 12, 8, 0)) == bound_difference(PairedOutcomes(0, 12, 8, 380))


def test_bound_is_below_the_observed_difference_and_within_one() -> None:
    for gained in range(0, 40, 3):
        for lost in range(0, 40, 3):
            for agreed in (0, 1, 400):
                if gained + lost + agreed:
                    total = gained + lost + agreed
                    bound = bound_difference(PairedOutcomes(agreed, gained, lost, 0))
                    assert -1 <= bound < (gained - lost) / total or bound == -1 == (gained - lost) / total


def test_bound_rises_with_images_and_falls_with_confidence() -> None:
    small, large = PairedOutcomes(180, 12, 8, 0), PairedOutcomes(1800, 120, 80, 0)
    assert bound_difference(small) < bound_difference(large) < 0.02
    assert bound_difference(small, confidence=0.99) < bound_difference(small, confidence=0.95)


@pytest.mark.parametrize("paired", [PairedOutcomes(0, 0, 0, 0), PairedOutcomes(10, -1, 2, 0)])
def test_rejects_impossible_counts(paired: PairedOutcomes) -> None:
    with pytest.raises(ValueError, match="counts"):
        bound_difference(paired)


@pytest.mark.parametrize("images", [400, 750])
def test_never_promotes_candidate_observed_three_points_worse(images: int) -> None:
    lost_more = round(0.03 * images)
    for gained in range(0, (images - lost_more) // 2, 7):
        discordant = 2 * gained + lost_more
        paired = PairedOutcomes(images - discordant, gained, gained + lost_more, 0)
        assert bound_difference(paired) <= -MARGIN


@pytest.mark.parametrize("images", [400, 750])
@pytest.mark.parametrize("accuracy", [0.85, 0.90])
@pytest.mark.parametrize("correlation", [0.5, 0.95])
def test_rarely_promotes_candidate_three_points_worse(images: int, accuracy: float, correlation: float) -> None:
    worse = simulate(Setting(images, accuracy, correlation, -0.03), draws=1000, margin=MARGIN, seed=[1])
    better = simulate(Setting(images, accuracy, correlation, 0.03), draws=1000, margin=MARGIN, seed=[2])
    assert worse <= 0.05
    assert better >= 0.75


def test_simulated_models_have_the_requested_accuracies() -> None:
    both, only_candidate, only_champion, neither = share_outcomes(Setting(400, 0.9, 0.8, -0.03))
    assert both + only_candidate == pytest.approx(0.87)
    assert both + only_champion == pytest.approx(0.90)
    assert both + only_candidate + only_champion + neither == pytest.approx(1)
    # With independent errors it would be 0.783.
    assert both > 0.8
