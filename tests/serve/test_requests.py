"""Test the memory limit for the bodies of all requests together."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from jobs.serve.requests import BODIES_BYTES, BodyReader, UnavailableError

LARGE = BODIES_BYTES // 2 + 1


def make_request(*parts: bytes, stops: bool = False) -> Request:
    """Return a request whose body arrives in parts. With ``stops``, another part is announced but never arrives."""
    left: list[bytes] = list(parts)

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or stops}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def read(reader: BodyReader, request: Request) -> int:
    async with reader.read(request, LARGE) as body:
        return len(body)


def test_bodies_of_all_requests_share_one_limit() -> None:
    async def ask() -> None:
        reader = BodyReader(LARGE)
        async with reader.read(make_request(bytes(LARGE)), LARGE) as held:
            assert len(held) == LARGE
            # The service does not drop a complete body to free memory.
            with pytest.raises(UnavailableError, match="too many large images"):
                await read(reader, make_request(bytes(LARGE)))
        assert await read(reader, make_request(bytes(LARGE))) == LARGE

    asyncio.run(ask())


@pytest.mark.parametrize("sizes", [[LARGE], [LARGE // 3] * 5])
def test_stalled_clients_block_no_other_client(sizes: Sequence[int]) -> None:
    async def ask() -> None:
        reader = BodyReader(LARGE)
        stopped = [asyncio.create_task(read(reader, make_request(bytes(size), stops=True))) for size in sizes]
        await asyncio.sleep(0.1)
        assert await read(reader, make_request(bytes(LARGE // 2), bytes(LARGE // 2))) == LARGE // 2 * 2
        await asyncio.sleep(0.1)
        assert stopped[0].done()
        with pytest.raises(UnavailableError, match="too many large images"):
            await stopped[0]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        assert (reader._held_bytes, reader._arriving) == (0, [])

    asyncio.run(ask())
