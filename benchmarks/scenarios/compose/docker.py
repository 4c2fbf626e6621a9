"""Run programs with a deadline, and ask whether a Docker engine answers."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMANDS = (("docker", "info"), ("docker", "compose", "version"), ("docker", "buildx", "version"))


class FailedCommandError(Exception):
    """A command failed or passed its deadline."""


def run(
    command: Sequence[str], seconds: float, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command and return its output.

    Raises:
        FailedCommandError: it failed, or was still running after ``seconds`` and was killed with its children.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise FailedCommandError(f"{command[-1]} did not end within {seconds:.0f} s") from None
        raise
    if process.returncode:
        raise FailedCommandError(f"{command[-1]} ended with {process.returncode}:\n{output[-2000:]}\n{errors[-4000:]}")
    return output


def find_missing_program() -> str | None:
    """Return why nothing can be run here, or None if an engine, Compose and BuildKit answer."""
    for command in COMMANDS:
        try:
            run(command, 30)
        except FileNotFoundError:
            return "docker is not installed"
        except FailedCommandError:
            return f"`{' '.join(command)}` fails"
    return None
