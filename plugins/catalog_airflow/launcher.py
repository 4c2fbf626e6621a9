"""Import Airflow once and fork its processes, because each import takes seconds of processor time.

Reads requests from standard input, one JSON object per line: ``argv``, the command line; ``log``, the file for its
output; ``wait``, whether to wait for its end. Responds to each with a JSON object: ``pid``, and the ``exit_code`` of a
command that it waited for. Exits at the end of its input; the processes that it started keep running.
"""

import gc
import importlib
import json
import os
import sys

SHARED = (
    "airflow.__main__",
    "airflow.utils.db",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.dag_processing.manager",
)
"""Modules that all Airflow commands import, and those that only its daemons import."""


def main() -> None:
    """Serve requests until the input ends."""
    # Importing Airflow writes to standard output, so responses get a descriptor of their own.
    responses = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for module in SHARED:
        importlib.import_module(module)
    # Otherwise each child would inherit the buffer and write it into its own log.
    sys.stdout.flush()
    # Memory pages that the garbage collector does not touch stay shared with the children.
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            responses.close()
            _become(request["argv"], request["log"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if request["wait"] else None
        responses.write(json.dumps({"pid": pid, "exit_code": code}) + "\n")


def _become(argv: list[str], log: str) -> None:
    """Turn this process into an Airflow command in its own session. Never returns."""
    from airflow.__main__ import main as run_airflow
    from setproctitle import setproctitle

    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor, replacement in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(replacement, descriptor)
    sys.argv = argv
    setproctitle(" ".join(argv))
    sys.exit(run_airflow())


if __name__ == "__main__":
    main()
