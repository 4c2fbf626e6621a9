"""Run the query service over HTTP (``python -m jobs serve``): raw bodies in, JSON out."""

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
from jobs.errors import PermanentError
from jobs.images.decode_pool import DecodePool
from jobs.serve.client import EmbeddedQuery
from jobs.serve.follower import LiveModelFollower
from jobs.serve.requests import (
    LOOPBACK_NAMES,
    AnswerBody,
    BodyReader,
    NotNowError,
    QuestionPath,
    UnfitQuestionError,
    is_on_loopback,
    require_token_beyond_loopback,
    write_json,
    write_refusal,
)
from jobs.serve.service import QueryService
from jobs.settings import Settings

TEXT_BODY_BYTES = 16_384
"""Of JSON, in which each byte of a text may take six."""


class TextQuestion(BaseModel):
    """The body of ``/embed-text``."""

    text: str


def create_app(service: QueryService, settings: Settings) -> FastAPI:
    """The paths of the service; no pages of documentation, which would fetch scripts from elsewhere."""
    app = FastAPI(title="Catalog tagger: query service", openapi_url=None)
    if is_on_loopback(settings):
        # A page in somebody's browser may ask under a name of its own that leads here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, settings.serving.serve_host])
    bodies = BodyReader(settings.images.max_object_bytes)

    async def embed_text(body: bytes) -> EmbeddedQuery:
        return await service.embed_text(_read_text(body))

    questions: tuple[tuple[str, AnswerBody, int], ...] = (
        ("/embed-text", embed_text, TEXT_BODY_BYTES),
        ("/embed-image", service.embed_image, settings.images.max_object_bytes),
        ("/classify", service.classify, settings.images.max_object_bytes),
    )
    for path, answer, body_bytes in questions:
        question_path = QuestionPath(path, answer, bodies, body_bytes, service.metrics, settings)
        app.add_api_route(path, question_path.handle, methods=["POST"], response_model=None)

    @app.get("/health", response_model=None)
    async def health() -> Response:
        found = service.describe_health()
        trouble = "; ".join(found.trouble)
        if not found.is_ready:
            return write_refusal(NotNowError("not_ready", trouble))
        versions = {"classifier": found.classifier, "encoder": found.encoder}
        return write_json(200, versions | ({"trouble": trouble} if trouble else {}))

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=service.metrics.media_type)

    return app


def _read_text(body: bytes) -> str:
    try:
        return TextQuestion.model_validate_json(body).text
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise UnfitQuestionError("unfit_text", f'the body must be {{"text": "..."}} in JSON: {fault}') from None


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
    with (
        _listen(settings.serving.serve_host, settings.serving.serve_port) as listener,
        prepare_server(connections) as server,
    ):
        log.info("answering on http://%s:%d", settings.serving.serve_host, settings.serving.serve_port)
        server.run(sockets=[listener])


@contextmanager
def prepare_server(connections: Connections) -> Iterator[uvicorn.Server]:
    """A server that only has to be run; during the block its processes live, and it follows the live models."""
    settings = connections.settings
    with ExitStack() as stack:
        pool = stack.enter_context(DecodePool(settings.compute.decode_processes, PHOTO_SECONDS))
        follower = LiveModelFollower(connections)
        service = stack.enter_context(QueryService(follower, pool, settings))
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
    """Bound before anything is loaded, so that a taken port is one clear line."""
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise PermanentError(
            f"cannot listen on {host}:{port}: {error.strerror}; set CATALOG_SERVE_HOST and CATALOG_SERVE_PORT"
        ) from None


def _leave(*_: object) -> None:
    sys.exit(0)
