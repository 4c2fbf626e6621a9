"""Gates on the snapshot: is it evidence at all?"""

from jobs.retrain.gates.findings import Evidence, Finding, fail_unmeasured, require_at_least, require_at_most
from jobs.retrain.gates.gate_policy import GatePolicy


def decide_test_set_size(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Enough images were asked for the accuracy that is claimed; they count, and not those that the snapshot lists."""
    scores = evidence.metrics.classifier or evidence.metrics.encoder
    lower = policy.min_accuracy - policy.accuracy_resolution
    return require_at_least(
        scores.images if scores else None,
        policy.min_test_images,
        "the size of the test set",
        lambda value: f"the scores rest on {value:.0f} test images",
        f"it takes {policy.min_test_images} to tell a share of {policy.min_accuracy:.3f} from one of {lower:.3f}",
    )


def decide_smallest_category(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Every category has enough test images for a recall."""
    data = evidence.metrics.data
    return require_at_least(
        data.fewest_test_images_of_a_category if data else None,
        policy.min_category_test_images,
        "the number of test images of each category",
        lambda value: f"the rarest category has {value:.0f} test images",
        f"{policy.min_category_test_images} are needed of each",
    )


def decide_no_leak(evidence: Evidence, policy: GatePolicy) -> Finding:
    """No test image was learned from, by its bytes, its group or its looks."""
    data, need = evidence.metrics.data, "none may be, or the scores are worth nothing"
    counts = (data.shared_contents, data.shared_groups, data.shared_near_duplicates) if data else (None,)
    known = [count for count in counts if count is not None and count >= 0]
    if len(known) < 3:
        return fail_unmeasured(0, "how many test images leaked into train or validation", need)
    contents, groups, duplicates = known
    leaks = f"{contents} by their bytes, {groups} by their group, {duplicates} by a near duplicate"
    return require_at_most(
        sum(known),
        0,
        "the leak",
        lambda value: (
            f"test images are in train or validation: {leaks}" if value else "no test image is in train or validation"
        ),
        need,
    )


def decide_snapshot_age(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The labels show what the shop sells today."""
    return require_at_most(
        evidence.metrics.data.age_days if evidence.metrics.data else None,
        policy.max_snapshot_age_days,
        "the age of the snapshot",
        lambda value: f"the snapshot was taken {max(0.0, value):.1f} days ago",
        f"at most {policy.max_snapshot_age_days:g} days are allowed",
        # The clocks of two machines differ.
        least=-1.0,
    )
