"""The TCP ports of a local stack, all on loopback."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from jobs.errors import PermanentError

LOOPBACK = "127.0.0.1"
_USUAL_AIRFLOW_PORT = 8080
_USUAL_QUERY_PORT = 8091


@dataclass(frozen=True)
class WantedPorts:
    """Ports asked for; None leaves the choice to what was used before, or, the first time, to what is free."""

    postgres: int | None = None
    s3: int | None = None
    airflow: int | None = None
    query: int | None = None


@dataclass(frozen=True)
class StackPorts:
    """The ports that a stack uses from its first start on."""

    postgres: int
    s3: int
    airflow: int
    # Stacks that were started before there was a query service remember none.
    query: int = _USUAL_QUERY_PORT


def choose_ports(wanted: WantedPorts, remembered: StackPorts | None) -> StackPorts:
    """What was asked for, else what was used before, else a free port."""
    postgres, s3, airflow, query = find_free_ports(4)
    before = remembered or StackPorts(
        postgres,
        s3,
        _USUAL_AIRFLOW_PORT if is_port_free(_USUAL_AIRFLOW_PORT) else airflow,
        _USUAL_QUERY_PORT if is_port_free(_USUAL_QUERY_PORT) else query,
    )
    return StackPorts(
        wanted.postgres or before.postgres,
        wanted.s3 or before.s3,
        wanted.airflow or before.airflow,
        wanted.query or before.query,
    )


def find_free_port() -> int:
    """A port of the operating system's choice."""
    return find_free_ports(1)[0]


def find_free_ports(count: int) -> list[int]:
    """Different ports of the operating system's choice."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def is_port_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of loopback now."""
    with socket.socket() as listener:
        # Servers set the same option: a connection that lingers after its server ended is no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_port_open(port: int) -> bool:
    """Whether a server on loopback accepts connections on ``port``."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0


def require_free_port(port: int, setting: str) -> None:
    """Fail early where a server would only write a line into its log.

    Raises:
        PermanentError: the port is taken; the message names the ``setting`` that changes it.
    """
    if not is_port_free(port):
        raise PermanentError(f"port {port} is taken by another program: end it, or set {setting} to a free port")
