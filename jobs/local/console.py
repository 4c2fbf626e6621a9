"""What the local stack's commands print."""

from pathlib import Path

from jobs.local.stack import StackStatus


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


def count_gpus() -> int:
    """NVIDIA GPUs that this machine shows, without loading CUDA."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
