"""What a gate works with and what it returns."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jobs.database.evaluations import Verdict
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.retrain.gates.gate_policy import GatePolicy


@dataclass(frozen=True)
class Evidence:
    """All that was measured of a candidate, and whether there was anything to compare it with."""

    metrics: EvaluationMetrics
    has_champion: bool
    has_tagged_catalog: bool


@dataclass(frozen=True)
class Finding:
    """What one gate found; ``value`` is None where it was missing or not a number."""

    value: float | None
    bound: float
    verdict: Verdict
    sentence: str


Gate = Callable[[Evidence, GatePolicy], Finding]


def require_at_least(
    value: float | None, bound: float, subject: str, describe: Callable[[float], str], need: str
) -> Finding:
    """Pass a value that reaches its bound.

    ``subject`` names what was to be measured, ``describe`` puts the value into words, ``need`` the bound.
    """
    if value is None or not math.isfinite(value):
        return fail_unmeasured(bound, subject, need)
    return Finding(value, bound, "passed" if value >= bound else "failed", f"{describe(value)}; {need}")


def require_at_most(
    value: float | None, bound: float, subject: str, describe: Callable[[float], str], need: str, least: float = 0.0
) -> Finding:
    """Pass a value that does not exceed its bound, as in `require_at_least`.

    One below ``least``, which no measurement gives, counts as not measured.
    """
    if value is None or not math.isfinite(value) or value < least:
        return fail_unmeasured(bound, subject, need)
    return Finding(value, bound, "passed" if value <= bound else "failed", f"{describe(value)}; {need}")


def require_yes(is_so: bool, yes: str, no: str) -> Finding:
    """Pass what is so; the value is 1, or 0 where it is not."""
    return Finding(float(is_so), 1.0, "passed" if is_so else "failed", yes if is_so else no)


def fail_unmeasured(bound: float, subject: str, need: str) -> Finding:
    """Fail what is unknown: nobody is promoted on a number that nobody has."""
    return Finding(None, bound, "failed", f"{subject} was not measured; {need}")


def skip(bound: float, reason: str) -> Finding:
    """Let pass what cannot be asked."""
    return Finding(None, bound, "skipped", reason)
