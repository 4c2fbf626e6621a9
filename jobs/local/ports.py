"""Choose and probe the TCP ports of a local stack, all on loopback."""

import http.client
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass

from jobs.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
_DEFAULT_AIRFLOW_PORT = 8080
_DEFAULT_QUERY_PORT = 8091
_HTTP_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class WantedPorts:
    """Ports that the user chose. None selects the port of the last start, or a free one."""

    postgres: int | None = None
    s3: int | None = None
    airflow: int | None = None
    query: int | None = None


@dataclass(frozen=True)
class StackPorts:
    """The ports of a stack. They are chosen at its first start and kept."""

    postgres: int
    s3: int
    airflow: int
    query: int


def choose_ports(wanted: WantedPorts, remembered: StackPorts | None) -> StackPorts:
    """Choose each port: the wanted one if set, otherwise the remembered one, otherwise a free one."""
    postgres, s3, airflow, query = find_free_ports(4)
    before = remembered or StackPorts(
        postgres,
        s3,
        _DEFAULT_AIRFLOW_PORT if is_port_free(_DEFAULT_AIRFLOW_PORT) else airflow,
        _DEFAULT_QUERY_PORT if is_port_free(_DEFAULT_QUERY_PORT) else query,
    )
    return StackPorts(
        wanted.postgres or before.postgres,
        wanted.s3 or before.s3,
        wanted.airflow or before.airflow,
        wanted.query or before.query,
    )


def find_free_port() -> int:
    """Return a port that the operating system chooses."""
    return find_free_ports(1)[0]


def find_free_ports(count: int) -> list[int]:
    """Return distinct ports that the operating system chooses."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` of loopback now."""
    with socket.socket() as listener:
        # Servers set this option too. Without it, a port with connections in TIME_WAIT looks taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_port_open(port: int) -> bool:
    """Tell whether a server on loopback accepts connections on ``port``."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0


def fetch_page(port: int, path: str) -> tuple[int, bytes] | None:
    """Return the status and body of a page on loopback, or None if there is no response.

    Uses the standard library, because creating an httpx client takes 20 ms and this function polls servers.
    """
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_HTTP_TIMEOUT_SECONDS)) as connection:
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return None


def require_free_port(port: int, setting: str) -> None:
    """Fail early if a port is taken. The server itself could only report this in its log.

    Raises:
        ConfigurationError: the port is taken; the message names the ``setting`` that changes it.
    """
    if not is_port_free(port):
        raise ConfigurationError(f"port {port} is taken by another program: stop it, or set {setting} to a free port")
