"""Import Airflow once and fork its processes, each of which would spend seconds of processor time on the import.

Reads orders from standard input, each a JSON object in a line: ``words``, the command line; ``log``, the file that
takes its output; ``is_awaited``, whether to wait for its end. Answers each with a JSON object: ``pid``, and the
``exit_code`` of a command that was awaited. Ends with its input; what it started goes on.
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
"""What all commands of Airflow import, and what its daemons need on top of that."""


def main() -> None:
    """Take orders until the input ends."""
    # Airflow writes to standard output as it is imported.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for module in SHARED:
        importlib.import_module(module)
    # What a child inherits in a buffer it would write into its own log.
    sys.stdout.flush()
    # Memory that the garbage collector leaves alone stays shared.
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            _become(order["words"], order["log"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if order["is_awaited"] else None
        answers.write(json.dumps({"pid": pid, "exit_code": code}) + "\n")


def _become(words: list[str], log: str) -> None:
    """Turn this process into a command of Airflow, in a session of its own; never return."""
    from airflow.__main__ import main as run_airflow
    from setproctitle import setproctitle

    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor, replacement in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(replacement, descriptor)
    sys.argv = words
    setproctitle(" ".join(words))
    sys.exit(run_airflow())


if __name__ == "__main__":
    main()
