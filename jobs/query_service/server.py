"""`python -m jobs serve`: the process of the query service, from its socket to its end."""

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn

from jobs.connections import Connections
from jobs.errors import PermanentError
from jobs.query_service.access import require_token_beyond_loopback
from jobs.query_service.app import create_app
from jobs.query_service.follower import LiveModelFollower
from jobs.query_service.service import QueryService
from jobs.tagging.decode_pool import DecodePool

log = logging.getLogger(__name__)

BACKLOG = 256
PHOTO_SECONDS = 5.0
"""Of processor time, which is less than the nightly run has: somebody waits, and others behind them."""


def serve(connections: Connections) -> None:
    """Answer until SIGTERM or Ctrl-C; then take nothing more, answer what was taken in, and return.

    Raises:
        PermanentError: the port is taken, the host has no such address, or one that other machines reach without
            a token.
        SystemExit: with code 0, on a signal.
    """
    settings = connections.settings
    require_token_beyond_loopback(settings)
    for request in (signal.SIGTERM, signal.SIGINT):
        # While it serves, uvicorn's own handlers are in place; when it is through it sends the signal again.
        signal.signal(request, _leave)
    with _listen(settings.serve_host, settings.serve_port) as listener, prepare_server(connections) as server:
        log.info("answering on http://%s:%d", settings.serve_host, settings.serve_port)
        server.run(sockets=[listener])


@contextmanager
def prepare_server(connections: Connections) -> Iterator[uvicorn.Server]:
    """A server that only has to be run; during the block its processes live, and it follows the live models."""
    settings = connections.settings
    with ExitStack() as stack:
        pool = stack.enter_context(DecodePool(settings.decode_processes, PHOTO_SECONDS))
        follower = LiveModelFollower(connections)
        service = stack.enter_context(QueryService(follower, pool, settings))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(service, settings),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(settings.serve_deadline_seconds) + 1,
            )
        )

        def stop_serving() -> None:
            server.should_exit = True

        stack.enter_context(follower.following(stop_serving))
        yield server


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything is loaded, so that a taken port is one clear line."""
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise PermanentError(
            f"cannot listen on {host}:{port}: {error.strerror}; set CATALOG_SERVE_HOST and CATALOG_SERVE_PORT"
        ) from None


def _leave(*_: object) -> None:
    sys.exit(0)
