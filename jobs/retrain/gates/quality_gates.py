"""Gates on the quality of a candidate, alone and compared with the champion."""

import math
from collections.abc import Callable

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.gates.findings import Evidence, Finding, fail_unmeasured, require_at_least, require_at_most, skip
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.paired_test import CONFIDENCE, bound_difference

NO_CHAMPION = "there is no champion yet to compare with"
NO_CATALOG = "no image of the catalog has a tag yet that could change"


def decide_accuracy(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The category is right often enough."""
    scores = evidence.metrics.classifier
    return _require_share("accuracy", scores.correct if scores else None, policy.min_accuracy, evidence)


def decide_top_3_accuracy(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The category is among the three likeliest often enough."""
    scores = evidence.metrics.classifier
    return _require_share(
        "top-3 accuracy", scores.top_3_correct if scores else None, policy.min_top_3_accuracy, evidence
    )


def decide_category_recall(evidence: Evidence, policy: GatePolicy) -> Finding:
    """No category is left behind."""
    scores, need = evidence.metrics.classifier, f"{policy.min_category_recall:.3f} is needed of every category"
    images = scores.images_by_category if scores else {}
    measured = {
        category: recall
        for category, recall in (scores.recall_by_category.items() if scores else ())
        if recall is not None and 0 <= recall <= 1
    }
    unknown = sorted(images.keys() - measured.keys())
    if unknown or not images:
        subject = f"the recall of {', '.join(unknown) or 'the categories'}"
        return fail_unmeasured(policy.min_category_recall, subject, need)
    recall, worst = min((measured[category], category) for category in images)
    return require_at_least(
        recall,
        policy.min_category_recall,
        f"the recall of {worst}",
        lambda value: f"the least recognised category is {worst}, with {value:.3f} of its {images[worst]} images",
        need,
    )


def decide_calibration(evidence: Evidence, policy: GatePolicy) -> Finding:
    """A confidence of 0.8 is right in 8 of 10 cases, by a temperature that the artifact carries."""
    scores = evidence.metrics.classifier
    temperature = scores.temperature if scores else None
    return require_at_most(
        scores.expected_calibration_error if scores and temperature else None,
        policy.max_calibration_error,
        "the calibration" if temperature else "the temperature of the calibration",
        lambda value: f"confidence and accuracy differ by {value:.3f} on average, at temperature {temperature:.2f}",
        f"{policy.max_calibration_error:.3f} is allowed",
    )


def decide_not_worse_than_champion(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The candidate loses no accuracy, on the very images that the scores come from."""
    paired, scores = evidence.metrics.paired, evidence.metrics.classifier
    is_of_these_images = (
        paired is not None
        and scores is not None
        and _count(paired) == scores.images
        and paired.both + paired.only_candidate == scores.correct
    )
    return _require_not_worse(
        "accuracy", "images", paired if is_of_these_images else None, policy.not_worse_margin, evidence
    )


def decide_blast_radius(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The catalog does not turn over at once."""
    radius, need = evidence.metrics.blast_radius, f"{policy.max_changed_share:.1%} are allowed"
    if not evidence.has_champion:
        return skip(policy.max_changed_share, NO_CHAMPION)
    if radius is None and not evidence.has_tagged_catalog:
        return skip(policy.max_changed_share, NO_CATALOG)
    is_plausible = radius is not None and 0 <= radius.changed <= radius.images
    return require_at_most(
        radius.changed / radius.images if radius and radius.images and is_plausible else None,
        policy.max_changed_share,
        "how much of the live catalog would change",
        lambda value: f"{value:.1%} of {radius.images if radius else 0} live images would change their category",
        need,
    )


def decide_clip_score(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Photos and their texts lie close together."""
    scores = evidence.metrics.encoder
    return require_at_least(
        scores.clip_score if scores and scores.images > 0 else None,
        policy.min_clip_score,
        "the CLIP score",
        lambda value: f"the CLIP score is {value:.1f} on {scores.images if scores else 0} photos with texts",
        f"{policy.min_clip_score:g} is needed",
    )


def decide_recall_at(depth: int) -> Callable[[Evidence, GatePolicy], Finding]:
    """The gate on recall@``depth``: texts find their photos no worse than with the champion."""

    def decide(evidence: Evidence, policy: GatePolicy) -> Finding:
        paired = (evidence.metrics.paired_recall or {}).get(f"recall_at_{depth}")
        return _require_not_worse(f"recall@{depth}", "texts", paired, policy.recall_margin, evidence)

    return decide


def _require_share(subject: str, right: int | None, bound: float, evidence: Evidence) -> Finding:
    """Pass by the lower bound of Wilson's score interval (1927), which holds where all were right, too."""
    # Here: the pages of Airflow's API server know the gates' names, and shall not pay for scipy.
    from scipy.stats import binomtest

    images = evidence.metrics.classifier.images if evidence.metrics.classifier else 0
    if right is None or images <= 0 or not 0 <= right <= images:
        return fail_unmeasured(bound, subject, f"{bound:.3f} is needed")
    lower = float(binomtest(right, images, alternative="greater").proportion_ci(CONFIDENCE, method="wilson").low)
    observed = f"{right / images:.3f} on {images} images"
    return require_at_least(
        lower,
        bound,
        subject,
        lambda value: f"{subject} is at least {_round_down(value):.3f} with 95 % confidence ({observed})",
        f"{bound:.3f} is needed",
    )


def _require_not_worse(
    subject: str, questions: str, paired: PairedOutcomes | None, margin: float, evidence: Evidence
) -> Finding:
    need = f"a loss of {margin:.3f} must be ruled out"
    if not evidence.has_champion:
        return skip(-margin, NO_CHAMPION)
    if paired is None or _count(paired) == 0 or _least(paired) < 0:
        return fail_unmeasured(-margin, f"the {subject} of candidate and champion on the same {questions}", need)
    lower, asked = bound_difference(paired), _count(paired)
    observed = (paired.only_candidate - paired.only_champion) / asked
    return Finding(
        lower,
        -margin,
        # The loss of the margin itself must be ruled out.
        "passed" if lower > -margin else "failed",
        f"{subject} differs from the champion's by {observed:+.3f} on the same {asked} {questions} "
        f"({paired.only_candidate} gained, {paired.only_champion} lost), "
        f"by {_round_down(lower):+.3f} or more with 95 % confidence; {need}",
    )


def _round_down(bound: float) -> float:
    """A lower bound to three places; rounded up, it would claim too much."""
    return math.floor(bound * 1000) / 1000


def _count(paired: PairedOutcomes) -> int:
    return paired.both + paired.only_candidate + paired.only_champion + paired.neither


def _least(paired: PairedOutcomes) -> int:
    return min(paired.both, paired.only_candidate, paired.only_champion, paired.neither)
