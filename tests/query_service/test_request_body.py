import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from jobs.query_service.refusals import NotNowError
from jobs.query_service.request_body import BODIES_BYTES, BodyReader

LARGE = BODIES_BYTES // 2 + 1


def make_request(body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_bodies_of_all_requests_share_one_limit() -> None:
    body = bytes(LARGE)

    async def ask() -> None:
        reader = BodyReader(LARGE)
        async with reader.read(make_request(body), LARGE) as held:
            assert len(held) == LARGE
            with pytest.raises(NotNowError, match="too many large photos"):
                async with reader.read(make_request(body), LARGE):
                    pass
        # Both have left their place.
        async with reader.read(make_request(body), LARGE) as again:
            assert len(again) == LARGE

    asyncio.run(ask())
