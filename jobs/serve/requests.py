"""Handle one path of the query service: read the body under limits, queue the request, and answer or refuse it."""

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

from jobs.errors import JobError, PermanentError
from jobs.failures import ObjectFault
from jobs.serve.client import Classification, EmbeddedQuery, Refusal
from jobs.serve.metrics import ServiceMetrics
from jobs.settings import Settings

LEAVE = {"Connection": "close"}
"""What was not read of a body is not waited for."""
ASK_AGAIN = {"Retry-After": "1"}


class RequestRefusedError(Exception):
    """Ends a request; ``reason`` is one word for programs, the message says more to people."""

    status: ClassVar[int]
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnknownClientError(RequestRefusedError):
    """The token is missing or wrong; nothing is read of the body."""

    status = 401
    headers = MappingProxyType(LEAVE | {"WWW-Authenticate": "Bearer"})


class UnfitQuestionError(RequestRefusedError):
    """The same text or photo will be refused again."""

    status = 422


class BodyTooLargeError(RequestRefusedError):
    """More bytes than the limit, which are not read."""

    status = 413
    headers = MappingProxyType(LEAVE)


class NotNowError(RequestRefusedError):
    """The service is full, has no model yet, or its model cannot compute: asking again may help."""

    status = 503
    headers = MappingProxyType(LEAVE | ASK_AGAIN)


class TooLateError(RequestRefusedError):
    """The deadline passed before the answer came."""

    status = 504
    headers = MappingProxyType(LEAVE)


BODIES_BYTES = 100_000_000
"""Of all bodies that are in memory, read and not yet decoded; one body alone may be larger."""


@dataclass(eq=False)
class _Arriving:
    """A body that is still arriving. Rescheduling its timeout to now cancels it."""

    timeout: asyncio.Timeout
    size_bytes: int = 0


class BodyReader:
    """Counts the bytes that all requests hold; belongs to the thread of the event loop.

    When they reach the limit, the body that began first and is still arriving is given up: a client that sends
    slowly, or stops, keeps nobody out.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = max(limit_bytes, BODIES_BYTES)
        self._held_bytes = 0
        self._arriving: list[_Arriving] = []

    @asynccontextmanager
    async def read(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body, which counts until the end of the block.

        Raises:
            BodyTooLargeError: it has more bytes than ``limit_bytes``; the rest is not read.
            NotNowError: the memory for bodies is full.
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
                arriving = _Arriving(timeout)
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


def _too_many() -> NotNowError:
    return NotNowError("queue_full", "too many large photos are arriving: ask again in a second")


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(ObjectFault.TOO_LARGE, f"the body has more than {limit_bytes} bytes")


CLIENT_LEFT = 499
"""What nginx logs for a client that did not wait; nobody reads it."""

Answer = EmbeddedQuery | Classification
AnswerBody = Callable[[bytes], Awaitable[Answer]]


class QuestionPath:
    """Reads bodies of up to ``body_bytes`` and has ``answer_body`` answer them."""

    def __init__(
        self,
        path: str,
        answer_body: AnswerBody,
        bodies: BodyReader,
        body_bytes: int,
        metrics: ServiceMetrics,
        settings: Settings,
    ) -> None:
        self._path = path
        self._answer_body = answer_body
        self._bodies = bodies
        self._body_bytes = body_bytes
        self._metrics = metrics
        self._queue_length = settings.serving.serve_queue_length
        self._deadline_seconds = settings.serving.serve_deadline_seconds
        self._token = settings.serving.query_token
        self._taken_in = 0
        metrics.follow_queue(path, lambda: self._taken_in)

    async def handle(self, request: Request) -> Response:
        """Answer a question, or say why not."""
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
            return write_json(200, asdict(await self._answer(request)))
        except RequestRefusedError as refusal:
            return write_refusal(refusal)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)

    async def _answer(self, request: Request) -> Answer:
        require_token(request, self._token)
        self._require_place()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                # No place in the queue is held while a body is read: slow clients would keep all others out.
                async with self._bodies.read(request, self._body_bytes) as body:
                    with self._take_in():
                        return await self._answer_body(body)
        except TimeoutError:
            raise TooLateError("deadline", f"no answer within {self._deadline_seconds:g} s") from None
        except JobError as error:
            raise NotNowError("model_failed", str(error)) from error

    def _require_place(self) -> None:
        if self._taken_in >= self._queue_length:
            raise NotNowError("queue_full", f"{self._taken_in} questions wait already: ask again in a second")

    @contextmanager
    def _take_in(self) -> Iterator[None]:
        self._require_place()
        self._taken_in += 1
        try:
            yield
        finally:
            self._taken_in -= 1


def write_refusal(refusal: RequestRefusedError) -> Response:
    """What a refusal looks like."""
    return write_json(refusal.status, asdict(Refusal(refusal.reason, str(refusal))), refusal.headers)


def write_json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response in JSON."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def is_on_loopback(settings: Settings) -> bool:
    """Tell whether the service is only reachable from this machine."""
    try:
        return ipaddress.ip_address(settings.serving.serve_host).is_loopback
    except ValueError:
        return settings.serving.serve_host == "localhost"


def require_token_beyond_loopback(settings: Settings) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        PermanentError: there is none.
    """
    if settings.serving.query_token is None and not is_on_loopback(settings):
        raise PermanentError(
            f"CATALOG_SERVE_HOST={settings.serving.serve_host} is reachable from other machines: "
            "set CATALOG_QUERY_TOKEN for the service and its clients, or serve on 127.0.0.1"
        )


def require_token(request: Request, token: str | None) -> None:
    """Check the token of a request, if the service has one.

    Raises:
        UnknownClientError: the token is missing or wrong.
    """
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise UnknownClientError("unknown_client", "send `Authorization: Bearer` with the value of CATALOG_QUERY_TOKEN")
