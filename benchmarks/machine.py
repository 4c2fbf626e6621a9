"""Describe the machine and the software versions that figures depend on."""

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from jobs.code_version import read_code_version
from jobs.cores import count_cores, describe_processor


def describe_machine() -> str:
    """Return the number of cores that this process may use and the processor's name."""
    return f"{count_cores()} cores of {describe_processor()}"


def read_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the commit of this project and the versions of the packages, if installed."""
    versions = {"commit": read_code_version()}
    for name in packages:
        # A missing package is not an error, because an error here would lose the figures of a long run.
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
