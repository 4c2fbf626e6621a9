"""Gates on the data set and on the scores of a candidate, alone and compared with the champion."""

from dataclasses import astuple

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.gates.findings import (
    Evidence,
    Finding,
    Gate,
    fail_unmeasured,
    require_at_least,
    require_at_most,
    skip,
)
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.paired_test import CONFIDENCE, bound_difference
from jobs.units import format_days, format_lower_bound, format_percent

NO_CHAMPION = "there is no champion to compare with"
NO_CATALOG = "no catalog image has a tag yet"


def decide_test_set_size(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a test set that is large enough for the required accuracy. Counts scored images, not snapshot rows."""
    scores = evidence.metrics.classifier or evidence.metrics.encoder
    lower = policy.min_accuracy - policy.accuracy_resolution
    return require_at_least(
        scores.images if scores else None,
        policy.min_test_images,
        "the size of the test set",
        lambda value: f"the scores are based on {value:.0f} test images",
        f"at least {policy.min_test_images} are required to distinguish an accuracy of "
        f"{format_percent(policy.min_accuracy)} from {format_percent(lower)}",
    )


def decide_smallest_category(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require enough test images of every category to measure its recall."""
    data = evidence.metrics.data
    return require_at_least(
        data.fewest_test_images_of_a_category if data else None,
        policy.min_category_test_images,
        "the number of test images of each category",
        lambda value: f"the rarest category has {value:.0f} test images",
        f"at least {policy.min_category_test_images} are required",
    )


def decide_no_leak(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require that no test image leaked into training, whether as identical bytes, by group or as a near duplicate."""
    data, need = evidence.metrics.data, "no leak is allowed"
    counts = (data.shared_contents, data.shared_groups, data.shared_near_duplicates) if data else (None,)
    known = [count for count in counts if count is not None and count >= 0]
    if len(known) < 3:
        return fail_unmeasured(0, "the number of test images that leaked into training", need)
    contents, groups, duplicates = known
    leaks = f"{contents} share bytes, {groups} share a group, {duplicates} are near duplicates"
    return require_at_most(
        sum(known),
        0,
        "the leak",
        lambda value: (
            f"test images leaked into train or validation: {leaks}"
            if value
            else "no test image is in train or validation"
        ),
        need,
    )


def decide_snapshot_age(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a recent snapshot, so that the labels match what the shop sells today."""
    return require_at_most(
        evidence.metrics.data.age_days if evidence.metrics.data else None,
        policy.max_snapshot_age_days,
        "the age of the snapshot",
        lambda value: f"the snapshot is {format_days(value)} old",
        f"at most {format_days(policy.max_snapshot_age_days)} are allowed",
        # Tolerate clock differences between machines.
        minimum=-1.0,
    )


def decide_accuracy(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a minimum accuracy."""
    scores = evidence.metrics.classifier
    return _require_share("accuracy", scores.correct if scores else None, policy.min_accuracy, evidence)


def decide_top_3_accuracy(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a minimum share of images whose category is among the three most likely."""
    scores = evidence.metrics.classifier
    return _require_share(
        "top-3 accuracy", scores.top_3_correct if scores else None, policy.min_top_3_accuracy, evidence
    )


def decide_category_recall(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a minimum recall of every category."""
    scores = evidence.metrics.classifier
    need = f"at least {format_percent(policy.min_category_recall)} is required for every category"
    images = scores.images_by_category if scores else {}
    measured = {
        category: recall
        for category, recall in (scores.recall_by_category.items() if scores else ())
        if recall is not None and 0 <= recall <= 1
    }
    missing = sorted(images.keys() - measured.keys())
    if missing or not images:
        subject = f"the recall of {', '.join(missing) or 'the categories'}"
        return fail_unmeasured(policy.min_category_recall, subject, need)
    recall, worst = min((measured[category], category) for category in images)
    return require_at_least(
        recall,
        policy.min_category_recall,
        f"the recall of {worst}",
        lambda value: f"the lowest recall is {format_percent(value)}, of {worst} ({images[worst]} images)",
        need,
    )


def decide_calibration(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require confidences that match the accuracy, and a temperature in the artifact."""
    scores = evidence.metrics.classifier
    temperature = scores.temperature if scores else None
    return require_at_most(
        scores.expected_calibration_error if scores and temperature else None,
        policy.max_calibration_error,
        "the calibration" if temperature else "the temperature of the calibration",
        lambda value: (
            f"confidence and accuracy differ by {format_percent(value)} on average, at temperature {temperature:.2f}"
        ),
        f"at most {format_percent(policy.max_calibration_error)} is allowed",
    )


def decide_not_worse_than_champion(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require an accuracy that is not worse than the champion's on the same test images."""
    paired, scores = evidence.metrics.paired, evidence.metrics.classifier
    is_same_test_set = (
        paired is not None
        and scores is not None
        and sum(astuple(paired)) == scores.images
        and paired.both + paired.only_candidate == scores.correct
    )
    return _require_not_worse(
        "accuracy", "images", paired if is_same_test_set else None, policy.not_worse_margin, evidence
    )


def decide_blast_radius(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Limit the share of the live catalog whose category would change at once."""
    radius = evidence.metrics.blast_radius
    if not evidence.has_champion:
        return skip(policy.max_changed_share, NO_CHAMPION)
    if radius is None and not evidence.has_tagged_catalog:
        return skip(policy.max_changed_share, NO_CATALOG)
    is_plausible = radius is not None and 0 <= radius.changed <= radius.images
    return require_at_most(
        radius.changed / radius.images if radius and radius.images and is_plausible else None,
        policy.max_changed_share,
        "the share of the live catalog that would change",
        lambda value: (
            f"{format_percent(value)} of {radius.images if radius else 0} live images would change their category"
        ),
        f"at most {format_percent(policy.max_changed_share)} is allowed",
    )


def decide_clip_score(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a minimum similarity of images and their texts."""
    scores = evidence.metrics.encoder
    return require_at_least(
        scores.clip_score if scores and scores.images > 0 else None,
        policy.min_clip_score,
        "the CLIP score",
        lambda value: f"the CLIP score is {value:.1f} on {scores.images if scores else 0} images with texts",
        f"at least {policy.min_clip_score:g} is required",
    )


def decide_recall_at(depth: int) -> Gate:
    """Return the gate that requires a text-to-image recall@``depth`` not worse than the champion's."""

    def decide(evidence: Evidence, policy: GatePolicy) -> Finding:
        paired = (evidence.metrics.paired_recall or {}).get(f"recall_at_{depth}")
        return _require_not_worse(f"recall@{depth}", "texts", paired, policy.recall_margin, evidence)

    return decide


def _require_share(subject: str, correct: int | None, bound: float, evidence: Evidence) -> Finding:
    """Compare the lower bound of Wilson's score interval (1927), which is valid even if every image is correct."""
    # Imported here because the pages of Airflow's API server import the gates but never call them.
    from scipy.stats import binomtest

    images = evidence.metrics.classifier.images if evidence.metrics.classifier else 0
    need = f"at least {format_percent(bound)} is required"
    if correct is None or images <= 0 or not 0 <= correct <= images:
        return fail_unmeasured(bound, subject, need)
    lower = float(binomtest(correct, images, alternative="greater").proportion_ci(CONFIDENCE, method="wilson").low)
    observed = f"{format_percent(correct / images)} on {images} images"
    return require_at_least(
        lower,
        bound,
        subject,
        lambda value: f"{subject} is at least {format_lower_bound(value)} with 95 % confidence ({observed})",
        need,
    )


def _require_not_worse(
    subject: str, unit: str, paired: PairedOutcomes | None, margin: float, evidence: Evidence
) -> Finding:
    need = f"it must be above {format_percent(-margin)}"
    if not evidence.has_champion:
        return skip(-margin, NO_CHAMPION)
    if paired is None or sum(astuple(paired)) == 0 or min(astuple(paired)) < 0:
        return fail_unmeasured(-margin, f"the {subject} of candidate and champion on the same {unit}", need)
    lower, total = bound_difference(paired), sum(astuple(paired))
    observed = (paired.only_candidate - paired.only_champion) / total
    return Finding(
        lower,
        -margin,
        # Equality is not enough: a loss of exactly the margin must be ruled out.
        "passed" if lower > -margin else "failed",
        f"{subject} differs from the champion's by {format_percent(observed, sign=True)} on the same {total} {unit} "
        f"({paired.only_candidate} gained, {paired.only_champion} lost); "
        f"the lower bound with 95 % confidence is {format_lower_bound(lower, sign=True)}; {need}",
    )
