"""Decoding processes that are killed, stopped, kept from starting, or given photos that take for ever."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from jobs.errors import RetryableError
from jobs.tagging.decode import DecodedImage, DecodeFault, DecodeLimits, decode_image
from jobs.tagging.decode_pool import DecodePool
from jobs.tagging.failures import Reason
from jobs.tagging.ingest import IngestOptions, ingest
from tests.shop import Shop, make_photo

DECODE = partial(decode_image, limits=DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=64))
HEALTHY = [make_photo(seed, (40 + seed, 50)) for seed in range(24)]
WIDTHS = [40 + seed for seed in range(24)]
LOOP, SLEEP, NO_MEMORY, KILL, BIG = b"loop", b"sleep", b"no memory", b"kill", b"big"


def decode_oddly(content: bytes) -> DecodedImage | DecodeFault | bytes:
    """A decoder that some bytes lead astray."""
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
    """The width of a photo, or why there is none."""
    if isinstance(decoded, DecodedImage | DecodeFault):
        return decoded.width if isinstance(decoded, DecodedImage) else decoded.reason
    assert isinstance(decoded, bytes)
    return len(decoded)


def list_processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def disturb(number: signal.Signals, pause_seconds: float) -> Iterator[None]:
    """Send a signal to some decoding process at random moments, twice in the pause on average."""
    is_over = threading.Event()
    chance = random.Random(0)

    def send() -> None:
        while not is_over.wait(pause_seconds * chance.random()):
            try:
                if processes := list_processes():
                    chance.choice(processes).send_signal(number)
            except psutil.Error:
                continue

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.timeout(120)
def test_no_healthy_photo_fails_when_processes_are_killed() -> None:
    with DecodePool(2) as pool, disturb(signal.SIGKILL, 2.0):
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            assert [tell(decoded) for decoded in pool.decode(decode_oddly, [*HEALTHY, BIG])] == [*WIDTHS, 50_000_000]
    assert list_processes() == []


def test_a_process_that_stands_still_is_replaced() -> None:
    with DecodePool(2, photo_seconds=2.0) as pool:
        pool.decode(decode_oddly, HEALTHY)
        list_processes()[0].suspend()
        assert [tell(decoded) for decoded in pool.decode(decode_oddly, HEALTHY)] == WIDTHS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("content", [LOOP, SLEEP])
def test_a_photo_that_takes_for_ever_fails_alone(content: bytes) -> None:
    with DecodePool(2, photo_seconds=1.0) as pool:
        decoded = pool.decode(decode_oddly, [*HEALTHY[:3], content, *HEALTHY[3:]])
    assert [tell(one) for one in decoded] == [*WIDTHS[:3], Reason.DECODER_TOO_SLOW, *WIDTHS[3:]]


def test_a_photo_whose_process_is_always_killed_is_asked_again_another_night() -> None:
    with DecodePool(1) as pool:
        assert [tell(one) for one in pool.decode(decode_oddly, [KILL, *HEALTHY])] == [Reason.DECODER_LOST, *WIDTHS]


def test_too_little_memory_is_no_fault_of_a_photo() -> None:
    with DecodePool(1) as pool:
        assert [tell(one) for one in pool.decode(decode_oddly, [NO_MEMORY, *HEALTHY])] == [Reason.DECODER_LOST, *WIDTHS]


def test_processes_that_are_always_killed_end_the_job() -> None:
    with DecodePool(2) as pool, pytest.raises(RetryableError, match="in a row were lost, and the last was killed"):
        pool.decode(decode_oddly, [KILL] * 20)


def test_processes_that_cannot_start_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    with pytest.raises(RetryableError, match="start"), DecodePool(1) as pool:
        pool.decode(DECODE, HEALTHY)


@pytest.mark.timeout(60)
def test_the_pool_ends_at_once_whatever_its_processes_do() -> None:
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
def test_an_ingest_whose_processes_are_killed_loses_nothing(tagging_shop: Shop) -> None:
    keys = tagging_shop.put_photos(64)
    connections = tagging_shop.with_settings(decode_processes=2)
    with disturb(signal.SIGKILL, 0.7):
        for _ in range(3):
            try:
                ingest(connections, IngestOptions())
            except RetryableError:
                continue
    ingest(connections, IngestOptions())
    assert tagging_shop.query("SELECT object_key FROM catalog.current_image_tags ORDER BY 1") == [
        (key,) for key in sorted(keys)
    ]
    assert tagging_shop.query("SELECT reason FROM catalog.item_failures WHERE resolved_at IS NULL") == []
