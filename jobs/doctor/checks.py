"""Run checks one after the other, each with a deadline. A check whose requirement failed is skipped."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.errors import EXIT_PERMANENT, EXIT_RETRY, JobError, first_line

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 15.0
CheckState = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of a check that did not fail: a sentence, and what to do if it is a warning."""

    sentence: str
    state: CheckState = "ok"


@dataclass(frozen=True)
class Check:
    """A part of the installation. ``examine`` raises JobError if it does not work.

    ``needs`` are the names of checks without which it cannot work, either.
    """

    name: str
    examine: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass(frozen=True)
class CheckResult:
    """The line of a check. ``exit_code`` is 0 unless it failed."""

    name: str
    state: CheckState
    detail: str
    exit_code: int = 0


def run_checks(checks: Sequence[Check]) -> list[CheckResult]:
    """Run all checks, even if some fail."""
    results: dict[str, CheckResult] = {}
    for check in checks:
        missing = [name for name in check.needs if results[name].state in ("failed", "skipped")]
        if missing:
            results[check.name] = CheckResult(check.name, "skipped", f"needs {' and '.join(missing)}")
        else:
            results[check.name] = _run(check)
    return list(results.values())


def _run(check: Check) -> CheckResult:
    """Run a check in a thread of its own, which is left behind if it does not end in time."""
    outcome: list[CheckResult] = []
    thread = threading.Thread(target=lambda: outcome.append(_examine(check)), name=check.name, daemon=True)
    thread.start()
    thread.join(check.deadline_seconds)
    if outcome:
        return outcome[0]
    return CheckResult(
        check.name, "failed", f"no result within {check.deadline_seconds:g} s: it hangs or is very slow", EXIT_RETRY
    )


def _examine(check: Check) -> CheckResult:
    try:
        finding = check.examine()
    except JobError as error:
        return CheckResult(check.name, "failed", str(error), error.exit_code)
    except Exception as error:
        # Whatever happens is a result: the other checks still have to run.
        log.debug("%s", check.name, exc_info=True)
        return CheckResult(check.name, "failed", f"{type(error).__name__}: {first_line(error)}", EXIT_PERMANENT)
    return CheckResult(check.name, finding.state, finding.sentence)
