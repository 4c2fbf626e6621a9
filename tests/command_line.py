"""Run ``python -m jobs`` in the process of the tests, or in a process of its own."""

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from typer.testing import CliRunner

from jobs.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True)
class Answer:
    """What a command leaves: its exit code, standard output, and the lines of standard error."""

    exit_code: int
    output: str
    messages: list[str]

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        errors = [line for line in self.messages if line.startswith("error: ")]
        assert len(errors) == 1, self.messages
        assert not any("Traceback" in line for line in self.messages), self.messages
        assert self.messages[-1] == errors[0]
        return errors[0]


def run_job(*words: str, environment: Mapping[str, str], typed: str = "") -> Answer:
    """Run a command in this process, which has loaded the libraries already."""
    exit_code: object = 0
    with (
        patch.dict(os.environ, _make_environment(environment)),
        patch.object(sys, "argv", ["jobs", *words]),
        _reset_logging(),
        CliRunner().isolation(typed) as (output, errors, _),
    ):
        try:
            runpy.run_module("jobs", run_name="__main__", alter_sys=True)
        except SystemExit as exit_:
            exit_code = exit_.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        written, messages = output.getvalue().decode(), errors.getvalue().decode()
    assert isinstance(exit_code, int)
    return Answer(exit_code, written, messages.splitlines())


def run_process(*words: str, environment: Mapping[str, str], typed: str = "") -> Answer:
    """Run a command in a process of its own, as a scheduler or a shell does."""
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        check=False,
        cwd=PROJECT_ROOT,
        env={**os.environ, **_make_environment(environment)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=280,
    )
    return Answer(finished.returncode, finished.stdout, finished.stderr.splitlines())


def _make_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Variables that hide every setting of this machine, except those that are passed."""
    unset = dict.fromkeys((f"CATALOG_{name.upper()}" for name in Settings.model_fields), "")
    return {"COLUMNS": "200", **unset, **changes}


@contextmanager
def _reset_logging() -> Iterator[None]:
    """Let a command set up logging as in a new process; afterwards pytest has its handlers back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
