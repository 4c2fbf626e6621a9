"""Kill, stall and block decoding processes."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import psutil
import pytest

from fixtures.shop import Shop, make_image
from jobs.errors import RetryableError
from jobs.failures import DecodeReason
from jobs.images.decode import DecodedImage, DecodeFailure, DecodeLimits, decode_image
from jobs.images.decode_pool import DecodePool
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions

DECODE = partial(decode_image, limits=DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=64))
HEALTHY = [make_image(seed, (40 + seed, 50)) for seed in range(24)]
WIDTHS = [40 + seed for seed in range(24)]
LOOP, SLEEP, NO_MEMORY, KILL, BIG = b"loop", b"sleep", b"no memory", b"kill", b"big"


@pytest.fixture(scope="module", autouse=True)
def forked_decoders() -> None:
    """Start the processes as a job does."""


def decode_oddly(content: bytes) -> DecodedImage | DecodeFailure | bytes:
    """Decode an image, but crash, hang, or return something else for special bytes."""
    if content == LOOP:
        while True:
            pass
    if content == SLEEP:
        time.sleep(600)
    if content == NO_MEMORY:
        raise MemoryError
    if content == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if content == BIG:
        return bytes(50_000_000)
    return DECODE(content)


def tell(decoded: object) -> object:
    """Return the width of an image, the reason of its failure, or the length of bytes."""
    if isinstance(decoded, DecodedImage | DecodeFailure):
        return decoded.width if isinstance(decoded, DecodedImage) else decoded.reason
    assert isinstance(decoded, bytes)
    return len(decoded)


def list_processes() -> list[psutil.Process]:
    """Return the running decoding processes."""
    found = []
    for child in psutil.Process().children():
        # The process may have ended, or be a zombie.
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


@contextmanager
def kill_one(seconds: float) -> Iterator[list[int]]:
    """Kill a decoding process from a thread. Yield a list that receives its pid."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 30
        while not list_processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds)
        for process in list_processes()[:1]:
            process.kill()
            killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        thread.join()


@pytest.mark.timeout(120)
def test_killed_processes_fail_no_healthy_image() -> None:
    moments = random.Random(0)
    with DecodePool(2) as pool:
        for _ in range(10):
            with kill_one(moments.uniform(0, 0.3)) as killed:
                decoded = pool.decode(decode_oddly, [*HEALTHY, BIG])
            assert killed
            assert [tell(one) for one in decoded] == [*WIDTHS, 50_000_000]
    assert list_processes() == []


def test_a_stalled_process_is_replaced() -> None:
    with DecodePool(2, image_seconds=2.0) as pool:
        pool.decode(decode_oddly, HEALTHY)
        list_processes()[0].suspend()
        assert [tell(decoded) for decoded in pool.decode(decode_oddly, HEALTHY)] == WIDTHS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("content", [LOOP, SLEEP])
def test_an_image_that_never_finishes_fails_alone(content: bytes) -> None:
    with DecodePool(2, image_seconds=1.0) as pool:
        decoded = pool.decode(decode_oddly, [*HEALTHY[:3], content, *HEALTHY[3:]])
    assert [tell(one) for one in decoded] == [*WIDTHS[:3], DecodeReason.DECODER_TOO_SLOW, *WIDTHS[3:]]


def test_an_image_whose_process_is_always_killed_is_retried_in_a_later_run() -> None:
    with DecodePool(1) as pool:
        decoded = [tell(one) for one in pool.decode(decode_oddly, [KILL, *HEALTHY])]
    assert decoded == [DecodeReason.DECODER_LOST, *WIDTHS]


def test_out_of_memory_does_not_count_against_an_image() -> None:
    with DecodePool(1) as pool:
        decoded = [tell(one) for one in pool.decode(decode_oddly, [NO_MEMORY, *HEALTHY])]
    assert decoded == [DecodeReason.DECODER_LOST, *WIDTHS]


def test_processes_that_are_always_killed_end_the_job() -> None:
    with DecodePool(2) as pool, pytest.raises(RetryableError, match="in a row were lost, and the last one was killed"):
        pool.decode(decode_oddly, [KILL] * 20)


def test_processes_that_cannot_start_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    with pytest.raises(RetryableError, match="start"), DecodePool(1) as pool:
        pool.decode(DECODE, HEALTHY)


@pytest.mark.timeout(60)
def test_the_pool_ends_immediately() -> None:
    with ThreadPoolExecutor(1) as thread, DecodePool(2) as pool:
        answer = thread.submit(pool.decode, decode_oddly, [SLEEP] * 2)
        time.sleep(1)
        for process in list_processes():
            process.suspend()
        started = time.monotonic()
        pool.__exit__()
        assert isinstance(answer.exception(), RetryableError)
        assert time.monotonic() - started < 10
    assert list_processes() == []


@pytest.mark.timeout(300)
def test_killed_processes_lose_no_image_of_an_ingest(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_images(64)
    connections = tagging_shop.with_settings(decode_processes=2)
    for seconds in (0, 0.05, 0.1):
        with kill_one(seconds) as killed:
            ingest(connections, IngestOptions(force=True))
        assert killed
    assert tagging_shop.query("SELECT object_key FROM catalog.current_image_tags ORDER BY 1") == [
        (key,) for key in sorted(keys)
    ]
    assert tagging_shop.query("SELECT reason FROM catalog.item_failures WHERE resolved_at IS NULL") == []
