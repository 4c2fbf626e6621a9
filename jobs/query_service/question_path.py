"""One path that takes questions: its queue, its deadline, and how long it took."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from jobs.errors import JobError
from jobs.query_service.access import require_token
from jobs.query_service.answers import Classification, EmbeddedQuery, Refusal
from jobs.query_service.metrics import ServiceMetrics
from jobs.query_service.refusals import NotNowError, RequestRefusedError, TooLateError
from jobs.query_service.request_body import BodyReader
from jobs.settings import Settings

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
        self._queue_length = settings.serve_queue_length
        self._deadline_seconds = settings.serve_deadline_seconds
        self._token = settings.query_token
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
