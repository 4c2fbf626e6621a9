"""Decode in separate processes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from fixtures.shop import make_image
from jobs.failures import DecodeReason
from jobs.images.decode import DecodedImage, DecodeFailure, DecodeLimits, decode_image
from jobs.images.decode_pool import DecodePool
from jobs.settings import PROJECT_ROOT

DECODE = partial(decode_image, limits=DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=64))
DEADLY = b"these bytes kill the decoder"
PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from jobs.images.decode_pool import end_with_parent
with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


@pytest.fixture(scope="module", autouse=True)
def forked_decoders() -> None:
    """Start the processes as a job does."""


def crash_on_deadly_bytes(content: bytes) -> DecodedImage | DecodeFailure:
    """A decoder with a segmentation fault."""
    if content == DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
    return DECODE(content)


def test_a_batch_keeps_its_order() -> None:
    images = [make_image(seed, (40 + seed, 50)) for seed in range(6)]
    with DecodePool(2) as pool:
        decoded = pool.decode(DECODE, [images[0], b"", *images[1:]])
    assert [image.width if isinstance(image, DecodedImage) else image.reason for image in decoded] == [
        40,
        DecodeReason.EMPTY,
        *range(41, 46),
    ]


def test_a_crash_fails_only_its_image() -> None:
    images = [make_image(seed) for seed in range(4)]
    with DecodePool(1) as pool:
        first = pool.decode(crash_on_deadly_bytes, [images[0], DEADLY, *images[1:]])
        second = pool.decode(crash_on_deadly_bytes, images)
    faults = [image.reason for image in first if isinstance(image, DecodeFailure)]
    assert faults == [DecodeReason.DECODER_CRASHED]
    assert isinstance(first[1], DecodeFailure)
    assert all(isinstance(image, DecodedImage) for image in second)


def test_processes_end_when_the_job_is_killed() -> None:
    program = (
        "import time\n"
        "from functools import partial\n"
        "from jobs.images.decode import DecodeLimits, decode_image\n"
        "from jobs.images.decode_pool import DecodePool\n"
        "with DecodePool(2) as pool:\n"
        "    pool.decode(partial(decode_image, limits=DecodeLimits(10**6, 8, 64)), [b'', b''])\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
        workers = psutil.Process(job.pid).children(recursive=True)
        assert workers
        job.kill()
    deadline = time.monotonic() + 120
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "a decoding process outlived the job"
        time.sleep(0.05)


def test_a_crash_does_not_fail_the_rest_of_its_group() -> None:
    images = [make_image(seed, (40 + seed, 50)) for seed in range(9)]
    with DecodePool(1) as pool:
        decoded = pool.decode(crash_on_deadly_bytes, [*images[:4], DEADLY, *images[4:]])
    widths = [image.width if isinstance(image, DecodedImage) else image.reason for image in decoded]
    assert widths == [*range(40, 44), DecodeReason.DECODER_CRASHED, *range(44, 49)]


def test_processes_start_before_the_first_image() -> None:
    with DecodePool(2):
        children = psutil.Process().children(recursive=True)
        assert sum("spawn_main" in " ".join(child.cmdline()) for child in children) >= 2


def test_busy_child_ends_with_its_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 120
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            child.kill()
            raise AssertionError("the child outlived its parent")
        time.sleep(0.05)
