"""Return the versions of the code and libraries, to record them with a model version."""

import importlib.metadata
import os
import subprocess
from contextlib import suppress
from functools import cache

from jobs.settings import PROJECT_ROOT

RELEASE = "0.1.0"
COMMIT_VARIABLE = "CODE_VERSION"
"""Set by a build argument in the Docker image, because the image contains no repository."""
GIT_SECONDS = 10
LIBRARIES = ("torch", "transformers", "openvino", "nncf")


@cache
def read_code_version() -> str:
    """Return the commit of the Docker image or the clone, with ``-dirty`` for local changes, else the release."""
    if commit := os.environ.get(COMMIT_VARIABLE):
        return commit
    if (PROJECT_ROOT / ".git").exists():
        with suppress(OSError, subprocess.SubprocessError):
            words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
            described = subprocess.run(
                words, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=GIT_SECONDS, check=True
            )
            return described.stdout.strip()
    return RELEASE


@cache
def read_library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that run models."""
    versions = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
