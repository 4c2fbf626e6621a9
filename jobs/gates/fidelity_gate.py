"""The gate on precision: a model that is served faster must answer as it does in float32."""

from jobs.evaluation.evaluation_record import Fidelity
from jobs.gates.gate_findings import Evidence, Finding, fail_unmeasured
from jobs.gates.gate_policy import GatePolicy

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
            _miss("neighbours kept", fidelity.neighbour_recall, least=policy.min_neighbour_recall),
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
