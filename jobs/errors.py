"""The faults that end a job, each with the exit code by which a scheduler decides whether to try again.

A bad photo is not one of these: it becomes a row in ``catalog.item_failures`` and the job goes on.
"""

from typing import ClassVar

EXIT_RETRY = 75
"""``EX_TEMPFAIL`` of sysexits.h: the world was broken for a moment, run the same command again."""

EXIT_PERMANENT = 78
"""``EX_CONFIG`` of sysexits.h: running the same command again cannot help."""

EXIT_TERMINATED = 143
"""128 + SIGTERM: stopped on request after the current chunk; the same command resumes."""


class JobError(Exception):
    """A fault that ends the job with one line on standard error; the message says what to do."""

    exit_code: ClassVar[int]


class RetryableError(JobError):
    """Bucket or database away, throttled, device out of memory: time cures it."""

    exit_code = EXIT_RETRY


class PermanentError(JobError):
    """Wrong configuration, checksum mismatch, too many bad photos: somebody has to act."""

    exit_code = EXIT_PERMANENT


class TerminatedError(JobError):
    """SIGTERM arrived; what was finished is saved."""

    exit_code = EXIT_TERMINATED


def first_line(error: Exception) -> str:
    """What went wrong, without the advice that libraries add."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__} {line}".strip() if isinstance(error, KeyError) or not line else line
