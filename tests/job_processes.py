"""Jobs in processes of their own that start at once: they are forked from one that has loaded the libraries."""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["jobs.tagging.retag", "jobs.tagging.tag_shard", "jobs.training.train"])


def start_job(*words: str, environment: Mapping[str, str], messages: Path) -> ForkServerProcess:
    """Start ``python -m jobs`` with these words; ``messages`` gets all that it writes."""
    process = _FORK_SERVER.Process(target=_run, args=(words, dict(environment), messages))
    process.start()
    return process


def _run(words: tuple[str, ...], environment: Mapping[str, str], messages: Path) -> None:
    with messages.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ |= environment
    # As in a shell, also where the tests themselves were started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["jobs", *words]
    runpy.run_module("jobs", run_name="__main__", alter_sys=True)
