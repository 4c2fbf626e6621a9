"""What the local stack's commands print."""

import os
from pathlib import Path

import psutil

from jobs.local.stack import StackStatus

TASK_BYTES = 3_000_000_000
"""Memory for each task, with its share of what Airflow and Postgres take."""


def format_status(status: StackStatus) -> str:
    """Each service with its process, then where the UI is and how to log in."""
    lines = [
        f"{service.name:<22} {f'running, pid {service.pid}' if service.pid else 'not running'}"
        for service in status.services
    ]
    if status.airflow_url and status.password and all(service.pid for service in status.services):
        lines += ["", format_login(status)]
    return "\n".join(lines)


def format_login(status: StackStatus) -> str:
    """Where the UI is, with which login, and how to stop it all."""
    return (
        f"Airflow UI: {status.airflow_url}   login: {status.username}   password: {status.password}\n"
        "Stop it all with `make down`."
    )


def choose_task_slots() -> int:
    """Return how many models this machine computes at a time: one on each GPU, else up to two on its cores.

    Two, because one task leaves cores idle while it starts, reads or writes; each takes some 2 GB.
    """
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    fitting = min(len(os.sched_getaffinity(0)), psutil.virtual_memory().total // TASK_BYTES)
    return gpus or max(1, min(2, fitting))
