"""Run the query service over HTTP (``catalog serve``): raw bodies in, JSON out."""

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jobs.connections import Connections
from jobs.errors import ConfigurationError
from jobs.images.decode_pool import DecodePool
from jobs.serve.client import EmbeddedQuery
from jobs.serve.follower import LiveModelFollower
from jobs.serve.metrics import ServiceMetrics
from jobs.serve.requests import (
    LOOPBACK_NAMES,
    BodyReader,
    HandleBody,
    InvalidQueryError,
    QueryEndpoint,
    UnavailableError,
    is_on_loopback,
    require_token_beyond_loopback,
    write_json,
    write_refusal,
)
from jobs.serve.service import QueryService
from jobs.settings import Settings

TEXT_BODY_BYTES = 16_384
"""JSON may escape each byte of a text as six bytes."""


class TextQuery(BaseModel):
    """The body of ``/embed-text``."""

    text: str


def create_app(service: QueryService, settings: Settings) -> FastAPI:
    """Create the application, without FastAPI's documentation pages, which load scripts from a CDN."""
    app = FastAPI(title="Catalog tagger: query service", openapi_url=None)
    if is_on_loopback(settings):
        # Prevent DNS rebinding: a web page could reach this machine under a host name that it controls.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, settings.serving.serve_host])
    bodies = BodyReader(settings.images.max_object_bytes)

    async def embed_text(body: bytes) -> EmbeddedQuery:
        return await service.embed_text(_read_text(body))

    endpoints: tuple[tuple[str, HandleBody, int], ...] = (
        ("/embed-text", embed_text, TEXT_BODY_BYTES),
        ("/embed-image", service.embed_image, settings.images.max_object_bytes),
        ("/classify", service.classify, settings.images.max_object_bytes),
    )
    for path, handle_body, body_bytes in endpoints:
        endpoint = QueryEndpoint(path, handle_body, bodies, body_bytes, service.metrics, settings)
        app.add_api_route(path, endpoint.handle, methods=["POST"], response_model=None)

    @app.get("/health", response_model=None)
    async def health() -> Response:
        state = service.describe_health()
        trouble = "; ".join(state.problems)
        if not state.is_ready:
            return write_refusal(UnavailableError("not_ready", trouble))
        versions = {"classifier": state.classifier, "encoder": state.encoder}
        return write_json(200, versions | ({"trouble": trouble} if trouble else {}))

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=service.metrics.media_type)

    return app


def _read_text(body: bytes) -> str:
    try:
        return TextQuery.model_validate_json(body).text
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise InvalidQueryError("unfit_text", f'the body must be JSON, {{"text": "..."}}: {problem}') from None


log = logging.getLogger(__name__)

BACKLOG = 256
DECODE_SECONDS = 5.0
"""Processor time for decoding one image. Less than in the nightly run, because requests are waiting."""


def serve(connections: Connections) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the accepted requests.

    Raises:
        ConfigurationError: the port is taken, this machine has no such address, or other machines can reach the address
            and no token is set.
        SystemExit: with code 0, on a signal.
    """
    settings = connections.settings
    require_token_beyond_loopback(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn has its own handlers while it serves. When it stops, it raises the signal again.
        signal.signal(number, _exit)
    with (
        _listen(settings.serving.serve_host, settings.serving.serve_port) as listener,
        prepare_server(connections) as server,
    ):
        log.info("serving on http://%s:%d", settings.serving.serve_host, settings.serving.serve_port)
        server.run(sockets=[listener])


@contextmanager
def prepare_server(connections: Connections) -> Iterator[uvicorn.Server]:
    """Yield a server to run. During the block, its decoding processes run and it follows the live models."""
    settings = connections.settings
    with ExitStack() as stack:
        pool = stack.enter_context(DecodePool(settings.compute.decode_processes, DECODE_SECONDS))
        metrics = ServiceMetrics()
        follower = LiveModelFollower(connections, metrics)
        service = stack.enter_context(QueryService(follower, pool, metrics, settings))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(service, settings),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(settings.serving.serve_deadline_seconds) + 1,
            )
        )

        def stop_serving() -> None:
            server.should_exit = True

        stack.enter_context(follower.following(stop_serving))
        yield server


def _listen(host: str, port: int) -> socket.socket:
    """Bind the port. This happens before anything is loaded, so a taken port fails at once."""
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; set CATALOG_SERVE_HOST and CATALOG_SERVE_PORT"
        ) from None


def _exit(*_: object) -> None:
    sys.exit(0)
