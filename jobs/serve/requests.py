"""Handle the requests of one endpoint: check the token, read the body under limits, limit the queue, respond."""

import asyncio
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from jobs.errors import ConfigurationError, JobError
from jobs.failures import ReadReason
from jobs.serve.client import Classification, EmbeddedQuery, Refusal
from jobs.serve.metrics import ServiceMetrics
from jobs.settings import Settings

CLOSE = {"Connection": "close"}
"""Close the connection instead of reading the rest of a body."""
TRY_AGAIN = {"Retry-After": "1"}


class RequestRefusedError(Exception):
    """End a request with an error response. ``reason`` is one word for programs, and the message is for people."""

    status: ClassVar[int]
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnauthorizedError(RequestRefusedError):
    """The token is missing or wrong. The body is not read."""

    status = 401
    headers = MappingProxyType(CLOSE | {"WWW-Authenticate": "Bearer"})


class InvalidQueryError(RequestRefusedError):
    """The text or image is invalid. A retry cannot help."""

    status = 422


class BodyTooLargeError(RequestRefusedError):
    """The body exceeds the limit. The rest of it is not read."""

    status = 413
    headers = MappingProxyType(CLOSE)


class UnavailableError(RequestRefusedError):
    """The service is full, has no model yet, or its model failed. A retry may help."""

    status = 503
    headers = MappingProxyType(CLOSE | TRY_AGAIN)


class DeadlineError(RequestRefusedError):
    """The deadline passed before there was a result."""

    status = 504
    headers = MappingProxyType(CLOSE)


BODIES_BYTES = 100_000_000
"""Memory limit for the undecoded bodies of all requests. It is raised if a single body may be larger."""


@dataclass(eq=False)
class _ArrivingBody:
    """A body that is still arriving. To cancel it, reschedule its timeout to now."""

    timeout: asyncio.Timeout
    size_bytes: int = 0


class BodyReader:
    """Read bodies, and limit the bytes that all requests hold. Not thread-safe: use it only from the event loop.

    At the limit, the oldest body that is still arriving is dropped, so slow or stalled clients cannot block others.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = max(limit_bytes, BODIES_BYTES)
        self._held_bytes = 0
        self._arriving: list[_ArrivingBody] = []

    @asynccontextmanager
    async def read(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body. Its bytes count toward the memory limit until the end of the block.

        Raises:
            BodyTooLargeError: the body has more than ``limit_bytes``.
            UnavailableError: the memory for bodies is full.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        body = await self._receive(request, limit_bytes)
        self._held_bytes += len(body)
        try:
            yield body
        finally:
            self._held_bytes -= len(body)

    async def _receive(self, request: Request, limit_bytes: int) -> bytes:
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(None) as timeout:
                arriving = _ArrivingBody(timeout)
                self._arriving.append(arriving)
                try:
                    async for chunk in request.stream():
                        arriving.size_bytes += len(chunk)
                        if arriving.size_bytes > limit_bytes:
                            raise _too_large(limit_bytes)
                        self._make_room()
                        if arriving not in self._arriving:
                            raise _too_many()
                        chunks.append(chunk)
                finally:
                    if arriving in self._arriving:
                        self._arriving.remove(arriving)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise _too_many() from None
        return b"".join(chunks)

    def _make_room(self) -> None:
        while self._arriving and self._held_bytes + sum(one.size_bytes for one in self._arriving) > self._limit_bytes:
            self._arriving.pop(0).timeout.reschedule(asyncio.get_running_loop().time())


def _too_many() -> UnavailableError:
    return UnavailableError("queue_full", "too many large images are arriving: try again in a second")


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(ReadReason.TOO_LARGE, f"the body has more than {limit_bytes} bytes")


CLIENT_LEFT = 499
"""The status that nginx logs when a client disconnects. No client sees it."""

QueryResult = EmbeddedQuery | Classification
HandleBody = Callable[[bytes], Awaitable[QueryResult]]


class QueryEndpoint:
    """One path of the service. It accepts bodies of up to ``body_bytes``, and ``handle_body`` computes the result."""

    def __init__(
        self,
        path: str,
        handle_body: HandleBody,
        bodies: BodyReader,
        body_bytes: int,
        metrics: ServiceMetrics,
        settings: Settings,
    ) -> None:
        self._path = path
        self._handle_body = handle_body
        self._bodies = bodies
        self._body_bytes = body_bytes
        self._metrics = metrics
        self._queue_length = settings.serving.serve_queue_length
        self._deadline_seconds = settings.serving.serve_deadline_seconds
        self._token = settings.serving.query_token
        self._accepted = 0
        metrics.follow_queue(path, lambda: self._accepted)

    async def handle(self, request: Request) -> Response:
        """Return the result, or an error response with the reason."""
        started = time.perf_counter()
        status = 500
        try:
            response = await self._respond(request)
            status = response.status_code
            return response
        finally:
            self._metrics.requests.labels(self._path, status).inc()
            self._metrics.seconds.labels(self._path).observe(time.perf_counter() - started)

    async def _respond(self, request: Request) -> Response:
        try:
            return write_json(200, asdict(await self._handle(request)))
        except RequestRefusedError as refusal:
            return write_refusal(refusal)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)

    async def _handle(self, request: Request) -> QueryResult:
        require_token(request, self._token)
        self._require_room()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                # Only complete bodies take a place in the queue. Otherwise slow clients would block all others.
                async with self._bodies.read(request, self._body_bytes) as body:
                    with self._accept():
                        return await self._handle_body(body)
        except TimeoutError:
            raise DeadlineError("deadline", f"no result within {self._deadline_seconds:g} s") from None
        except JobError as error:
            raise UnavailableError("model_failed", str(error)) from error

    def _require_room(self) -> None:
        if self._accepted >= self._queue_length:
            raise UnavailableError("queue_full", f"{self._accepted} requests are waiting: try again in a second")

    @contextmanager
    def _accept(self) -> Iterator[None]:
        self._require_room()
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1


def write_refusal(refusal: RequestRefusedError) -> Response:
    """Return the error response for a refused request."""
    return write_json(refusal.status, asdict(Refusal(refusal.reason, str(refusal))), refusal.headers)


def write_json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def is_on_loopback(settings: Settings) -> bool:
    """Return whether the service is reachable only from this machine."""
    try:
        return ipaddress.ip_address(settings.serving.serve_host).is_loopback
    except ValueError:
        return settings.serving.serve_host == "localhost"


def require_token_beyond_loopback(settings: Settings) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        ConfigurationError: the host is not a loopback address, and no token is set.
    """
    if settings.serving.query_token is None and not is_on_loopback(settings):
        raise ConfigurationError(
            f"CATALOG_SERVE_HOST={settings.serving.serve_host} is reachable from other machines: set "
            "CATALOG_QUERY_TOKEN for the service and its clients, or serve on 127.0.0.1"
        )


def require_token(request: Request, token: str | None) -> None:
    """Check the token of a request, if the service has one.

    Raises:
        UnauthorizedError: the token is missing or wrong.
    """
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise UnauthorizedError("unknown_client", "send `Authorization: Bearer` with the value of CATALOG_QUERY_TOKEN")
