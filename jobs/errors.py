"""Errors that end a job. The exit code of each tells a scheduler whether to try again.

A bad image is not such an error: it becomes a row in ``catalog.item_failures``, and the job continues.
"""

from typing import ClassVar

EXIT_RETRY = 75
"""``EX_TEMPFAIL`` of sysexits.h: a temporary problem. Run the same command again."""

EXIT_PERMANENT = 78
"""``EX_CONFIG`` of sysexits.h: running the same command again cannot help."""

EXIT_TERMINATED = 143
"""128 + SIGTERM: stopped on request after the current chunk. The same command resumes."""


class JobError(Exception):
    """End the job with one line on standard error. The message says what to do."""

    exit_code: ClassVar[int]


class RetryableError(JobError):
    """The bucket or database is unavailable or throttles, or the device is out of memory."""

    exit_code = EXIT_RETRY


class PermanentError(JobError):
    """Somebody has to act. Raised directly only for damaged data; in all other cases a subclass is raised."""

    exit_code = EXIT_PERMANENT


class ConfigurationError(PermanentError):
    """A setting, a credential, a model folder or the machine is not what the job needs."""


class NotFoundError(PermanentError):
    """The run, model version, product or file named in a command does not exist, or does not exist yet."""


class RefusedError(PermanentError):
    """The current state or a limit forbids what was requested, such as a promotion after a failed gate."""


class TerminatedError(JobError):
    """SIGTERM arrived. Finished work is saved."""

    exit_code = EXIT_TERMINATED


def first_line(error: Exception) -> str:
    """Return the first line of an error, without the advice that libraries add in further lines."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__} {line}".strip() if isinstance(error, KeyError) or not line else line
