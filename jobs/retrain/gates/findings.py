"""Define the inputs and the result of a gate, and compare a value with its bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jobs.database.evaluations import Verdict
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.retrain.gates.gate_policy import GatePolicy


@dataclass(frozen=True)
class Evidence:
    """The metrics of a candidate, and whether a champion and a tagged catalog exist to compare it with."""

    metrics: EvaluationMetrics
    has_champion: bool
    has_tagged_catalog: bool


@dataclass(frozen=True)
class Finding:
    """The result of one gate. ``value`` is None if it is missing or not finite."""

    value: float | None
    bound: float
    verdict: Verdict
    sentence: str


Gate = Callable[[Evidence, GatePolicy], Finding]


def require_at_least(
    value: float | None, bound: float, subject: str, describe: Callable[[float], str], need: str
) -> Finding:
    """Pass if the value is at least ``bound``.

    ``subject`` names the value in case it is missing. ``describe`` formats the value, and ``need`` states the bound.
    """
    if value is None or not math.isfinite(value):
        return fail_unmeasured(bound, subject, need)
    return Finding(value, bound, "passed" if value >= bound else "failed", f"{describe(value)}; {need}")


def require_at_most(
    value: float | None, bound: float, subject: str, describe: Callable[[float], str], need: str, minimum: float = 0.0
) -> Finding:
    """Pass if the value is at most ``bound``; see `require_at_least`.

    A value below ``minimum`` is impossible and counts as missing.
    """
    if value is None or not math.isfinite(value) or value < minimum:
        return fail_unmeasured(bound, subject, need)
    return Finding(value, bound, "passed" if value <= bound else "failed", f"{describe(value)}; {need}")


def require_true(is_true: bool, passed: str, failed: str) -> Finding:
    """Pass if the condition is true. The value is 1 or 0."""
    return Finding(float(is_true), 1.0, "passed" if is_true else "failed", passed if is_true else failed)


def fail_unmeasured(bound: float, subject: str, need: str) -> Finding:
    """Fail because a value is missing."""
    return Finding(None, bound, "failed", f"{subject} was not measured; {need}")


def skip(bound: float, reason: str) -> Finding:
    """Skip a gate whose comparison is not possible."""
    return Finding(None, bound, "skipped", reason)
