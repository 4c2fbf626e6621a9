"""Gates on the stored artifact: it is the trained model, its build is faithful, and it can be served."""

from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.gates.findings import (
    Evidence,
    Finding,
    fail_unmeasured,
    require_at_least,
    require_at_most,
    require_yes,
)
from jobs.retrain.gates.gate_policy import GatePolicy

EXACT = "fp32"
ROUNDING = 1e-5
"""By so much a cosine in float32 may exceed 1."""


def decide_fidelity(evidence: Evidence, policy: GatePolicy) -> Finding:
    """No criterion is missed; the value is the number of those that are."""
    served = evidence.metrics.served
    if served is None:
        return fail_unmeasured(0, "in which precision it is served", "`python -m jobs optimize` chooses it")
    way = f"{served.engine} {served.precision}"
    if served.fidelity is None:
        if served.precision == EXACT:
            return Finding(0, 0, "passed", f"it is served by {way}, as it was trained")
        return fail_unmeasured(0, f"what {way} costs", "`python -m jobs optimize` measures it")
    losses = find_losses(served.fidelity, policy)
    found = describe_fidelity(served.fidelity)
    if losses:
        return Finding(len(losses), 0, "failed", f"{way} loses too much beside float32: {'; '.join(losses)}")
    return Finding(0, 0, "passed", f"{way} answers as float32 does: {found}")


def find_losses(fidelity: Fidelity, policy: GatePolicy) -> list[str]:
    """The criteria of the model's kind that are missed, in words; what was not measured is missed."""
    is_encoder = any(
        value is not None
        for value in (fidelity.mean_cosine, fidelity.worst_cosine, fidelity.neighbour_recall, fidelity.lost_recall_at_5)
    )
    losses = (
        [
            _miss("mean cosine", fidelity.mean_cosine, least=policy.min_mean_cosine),
            _miss("worst cosine", fidelity.worst_cosine, least=policy.min_worst_cosine),
            _miss("neighbours kept", fidelity.neighbour_recall, least=policy.min_neighbor_recall),
            _miss("recall@5 lost", fidelity.lost_recall_at_5, most=policy.max_lost_recall),
        ]
        if is_encoder
        else [
            _miss("accuracy lost", fidelity.lost_accuracy, most=policy.max_lost_accuracy),
            _miss("same first answer where float32 is sure", fidelity.agreement, least=policy.min_agreement),
        ]
    )
    return [loss for loss in losses if loss]


def _miss(name: str, value: float | None, least: float = -1.0, most: float = 1.0) -> str | None:
    """What is wrong with a value, all of which lie between -1 and 1; None if nothing is."""
    if value is None or not -1 - ROUNDING <= value <= 1 + ROUNDING:
        return f"{name} was not measured"
    if value < least:
        return f"{name} {value:.4f}, at least {least:g} is asked for"
    if value > most + ROUNDING:
        return f"{name} {value:.4f}, at most {most:g} is asked for"
    return None


def describe_fidelity(fidelity: Fidelity) -> str:
    """The figures, for people."""
    figures = (
        ("accuracy lost", fidelity.lost_accuracy),
        ("same first answer where float32 is sure", fidelity.agreement),
        ("mean cosine", fidelity.mean_cosine),
        ("worst cosine", fidelity.worst_cosine),
        ("neighbours kept", fidelity.neighbour_recall),
        ("recall@5 lost", fidelity.lost_recall_at_5),
    )
    return ", ".join(f"{name} {value:.4f}" for name, value in figures if value is not None)


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
