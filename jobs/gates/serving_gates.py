"""Gates on the stored artifact: is it the model that was trained, and can it be served?"""

from jobs.gates.gate_findings import (
    Evidence,
    Finding,
    fail_unmeasured,
    require_at_least,
    require_at_most,
    require_yes,
)
from jobs.gates.gate_policy import GatePolicy

UNREAD = "the artifact in the bucket"


def decide_artifact_checksum(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The bucket holds what was registered."""
    servable = evidence.metrics.servable
    if servable is None:
        return fail_unmeasured(1, UNREAD, "its checksum must be right")
    return require_yes(
        servable.is_checksum_right,
        "the artifact read back from the bucket is the one that was registered",
        f"the artifact in the bucket is not the one that was registered: {servable.fault or 'its checksum is wrong'}",
    )


def decide_labels_and_preprocessing(evidence: Evidence, policy: GatePolicy) -> Finding:
    """A classifier's artifact says by itself what its outputs are called and how photos are prepared for it."""
    servable = evidence.metrics.servable
    if servable is None:
        return fail_unmeasured(1, UNREAD, "it must hold categories and preprocessing")
    return require_yes(
        servable.has_labels and servable.has_preprocessing,
        "the artifact holds the data set's categories and its preprocessing",
        f"the artifact lacks the data set's categories or its preprocessing: {servable.fault or 'they are not there'}",
    )


def decide_preprocessing(evidence: Evidence, policy: GatePolicy) -> Finding:
    """An encoder's artifact says by itself how photos are prepared for it."""
    servable = evidence.metrics.servable
    if servable is None:
        return fail_unmeasured(1, UNREAD, "it must hold its preprocessing")
    return require_yes(
        servable.has_preprocessing,
        "the artifact holds its preprocessing",
        f"the artifact lacks its preprocessing: {servable.fault or 'it is not there'}",
    )


def decide_same_outputs(evidence: Evidence, policy: GatePolicy) -> Finding:
    """The artifact answers as the model did when it was trained; whatever else is wrong with it counts here too."""
    servable = evidence.metrics.servable
    fault = f" ({servable.fault})" if servable and servable.fault else ""
    finding = require_at_most(
        servable.largest_difference if servable else None,
        policy.max_output_difference,
        f"whether the artifact answers as the trained model did{fault}",
        lambda value: f"the artifact's answers differ from the trained model's by up to {value:.2g}{fault}",
        f"{policy.max_output_difference:g} is allowed",
    )
    return Finding(finding.value, finding.bound, "failed", finding.sentence) if fault else finding


def decide_latency(evidence: Evidence, policy: GatePolicy) -> Finding:
    """One image alone is answered quickly."""
    return require_at_most(
        evidence.metrics.serving.mean_latency_milliseconds if evidence.metrics.serving else None,
        policy.max_latency_milliseconds,
        "the latency",
        lambda value: f"one image takes {value:.1f} ms on average",
        f"{policy.max_latency_milliseconds:g} ms are allowed",
    )


def decide_throughput(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Many images are answered quickly."""
    return require_at_least(
        evidence.metrics.serving.images_per_second if evidence.metrics.serving else None,
        policy.min_images_per_second,
        "the throughput",
        lambda value: f"{value:.0f} images are answered in a second",
        f"{policy.min_images_per_second:g} are needed",
    )


def decide_failures(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Images get an answer; the share of none is unknown."""
    serving = evidence.metrics.serving
    return require_at_most(
        serving.failed_share if serving and serving.images > 0 else None,
        policy.max_failed_share,
        "the share of failures",
        lambda value: f"{value:.1%} of the images that it was served got no answer",
        f"{policy.max_failed_share:.1%} is allowed",
    )


def decide_memory(evidence: Evidence, policy: GatePolicy) -> Finding:
    """Serving fits into the memory that workers have."""
    return require_at_most(
        evidence.metrics.serving.peak_memory_bytes if evidence.metrics.serving else None,
        policy.max_memory_bytes,
        "the memory",
        lambda value: f"the process that serves it takes up to {value / 1e9:.2f} GB of memory",
        f"{policy.max_memory_bytes / 1e9:.2f} GB are allowed",
        least=1.0,
    )
