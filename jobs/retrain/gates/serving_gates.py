"""Gates on the stored artifact: it is intact, its build is faithful, and it can be served."""

from jobs.retrain.evaluate.evaluation_record import ArtifactCheck, Fidelity
from jobs.retrain.gates.findings import (
    Evidence,
    Finding,
    fail_unmeasured,
    require_at_least,
    require_at_most,
    require_true,
)
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.units import format_megabytes, format_percent, format_seconds, format_speed

EXACT = "fp32"
ROUNDING = 1e-5
"""Tolerance for cosines in float32 that exceed 1."""


def decide_fidelity(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require predictions close to the float32 predictions. The value is the number of failed criteria."""
    build = evidence.metrics.build
    if build is None:
        return fail_unmeasured(0, "the precision", "run `catalog optimize` to choose one")
    name = f"{build.engine} {build.precision}"
    if build.fidelity is None:
        if build.precision == EXACT:
            return Finding(0, 0, "passed", f"{name} computes as in training")
        return fail_unmeasured(0, f"the fidelity of {name}", "run `catalog optimize` to measure it")
    losses = find_losses(build.fidelity, policy)
    if losses:
        return Finding(len(losses), 0, "failed", f"{name} differs too much from float32: {'; '.join(losses)}")
    return Finding(0, 0, "passed", f"{name} is faithful to float32: {describe_fidelity(build.fidelity)}")


def find_losses(fidelity: Fidelity, policy: GatePolicy) -> list[str]:
    """Describe the failed criteria for this kind of model. A missing value fails."""
    is_encoder = any(
        value is not None
        for value in (fidelity.mean_cosine, fidelity.worst_cosine, fidelity.neighbor_recall, fidelity.lost_recall_at_5)
    )
    losses = (
        [
            _describe_loss("mean cosine", fidelity.mean_cosine, minimum=policy.min_mean_cosine),
            _describe_loss("worst cosine", fidelity.worst_cosine, minimum=policy.min_worst_cosine),
            _describe_loss("neighbors kept", fidelity.neighbor_recall, minimum=policy.min_neighbor_recall),
            _describe_loss("recall@5 lost", fidelity.lost_recall_at_5, maximum=policy.max_lost_recall),
        ]
        if is_encoder
        else [
            _describe_loss("accuracy lost", fidelity.lost_accuracy, maximum=policy.max_lost_accuracy),
            _describe_loss("agreement", fidelity.agreement, minimum=policy.min_agreement),
        ]
    )
    return [loss for loss in losses if loss]


def _describe_loss(name: str, value: float | None, minimum: float = -1.0, maximum: float = 1.0) -> str | None:
    """Describe why a value fails, or return None. Values outside -1 to 1 are impossible and count as missing."""
    if value is None or not -1 - ROUNDING <= value <= 1 + ROUNDING:
        return f"{name} was not measured"
    if value < minimum:
        return f"{name} {value:.4f}, at least {minimum:g} is required"
    if value > maximum + ROUNDING:
        return f"{name} {value:.4f}, at most {maximum:g} is allowed"
    return None


def describe_fidelity(fidelity: Fidelity) -> str:
    """List the metrics that were measured."""
    metrics = (
        ("accuracy lost", fidelity.lost_accuracy),
        ("agreement", fidelity.agreement),
        ("mean cosine", fidelity.mean_cosine),
        ("worst cosine", fidelity.worst_cosine),
        ("neighbors kept", fidelity.neighbor_recall),
        ("recall@5 lost", fidelity.lost_recall_at_5),
    )
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics if value is not None)


def decide_artifact_checksum(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require the artifact in the bucket to match its registered checksum."""
    check = evidence.metrics.artifact
    return _require_of_artifact(
        check,
        check is not None and check.is_checksum_right,
        "matches its registered checksum",
        "does not match its registered checksum",
    )


def decide_labels_and_preprocessing(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a classifier's artifact to contain the categories of the snapshot and the preprocessing."""
    check = evidence.metrics.artifact
    return _require_of_artifact(
        check,
        check is not None and check.has_labels and check.has_preprocessing,
        "contains the categories of the snapshot and the preprocessing",
        "lacks the categories of the snapshot or the preprocessing",
    )


def decide_preprocessing(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require an encoder's artifact to contain the preprocessing."""
    check = evidence.metrics.artifact
    return _require_of_artifact(
        check, check is not None and check.has_preprocessing, "contains the preprocessing", "lacks the preprocessing"
    )


def _require_of_artifact(check: ArtifactCheck | None, is_true: bool, passed: str, failed: str) -> Finding:
    if check is None:
        return fail_unmeasured(1, "the artifact in the bucket", f"an artifact that {passed} is required")
    detail = f": {check.error}" if check.error else ""
    return require_true(is_true, f"the artifact in the bucket {passed}", f"the artifact in the bucket {failed}{detail}")


def decide_same_outputs(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require the artifact to give the outputs recorded in training. Any other error of the artifact also fails."""
    check = evidence.metrics.artifact
    error = f" ({check.error})" if check and check.error else ""
    finding = require_at_most(
        check.largest_difference if check else None,
        policy.max_output_difference,
        f"the difference between the artifact's outputs and those in training{error}",
        lambda value: f"the artifact's outputs differ from those in training by up to {value:.2g}{error}",
        f"at most {policy.max_output_difference:g} is allowed",
    )
    return Finding(finding.value, finding.bound, "failed", finding.sentence) if error else finding


def decide_latency(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Limit the mean latency of a single image."""
    return require_at_most(
        evidence.metrics.serving.mean_latency_milliseconds if evidence.metrics.serving else None,
        policy.max_latency_milliseconds,
        "the latency",
        lambda value: f"a single image takes {format_seconds(value)} on average",
        f"at most {format_seconds(policy.max_latency_milliseconds)} is allowed",
    )


def decide_throughput(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Require a minimum throughput in batches."""
    return require_at_least(
        evidence.metrics.serving.images_per_second if evidence.metrics.serving else None,
        policy.min_images_per_second,
        "the throughput",
        lambda value: f"the throughput is {format_speed(value)}",
        f"at least {format_speed(policy.min_images_per_second)} are required",
    )


def decide_failures(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Limit the share of images that fail. Without any images, the share is unknown."""
    serving = evidence.metrics.serving
    return require_at_most(
        serving.failed_share if serving and serving.images > 0 else None,
        policy.max_failed_share,
        "the share of failures",
        lambda value: f"{format_percent(value)} of the images failed",
        f"at most {format_percent(policy.max_failed_share)} is allowed",
    )


def decide_memory(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Limit the peak memory of the serving process."""
    return require_at_most(
        evidence.metrics.serving.peak_memory_bytes if evidence.metrics.serving else None,
        policy.max_memory_bytes,
        "the memory",
        lambda value: f"the serving process uses up to {format_megabytes(value)} of memory",
        f"at most {format_megabytes(policy.max_memory_bytes)} are allowed",
        minimum=1.0,
    )
