"""Decoding in processes of its own."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil

from jobs.tagging.decode import DecodedImage, DecodeFault, DecodeLimits, decode_image
from jobs.tagging.decode_pool import DecodePool
from jobs.tagging.failures import Reason
from tests.shop import make_photo

DECODE = partial(decode_image, limits=DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=64))
DEADLY = b"these bytes kill the decoder"


def crash_on_deadly_bytes(content: bytes) -> DecodedImage | DecodeFault:
    """A decoder with a memory fault."""
    if content == DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
    return DECODE(content)


def test_batch_keeps_its_order() -> None:
    photos = [make_photo(seed, (40 + seed, 50)) for seed in range(6)]
    with DecodePool(2, DECODE) as pool:
        decoded = pool.decode([photos[0], b"", *photos[1:]])
    assert [image.width if isinstance(image, DecodedImage) else image.reason for image in decoded] == [
        40,
        Reason.EMPTY,
        *range(41, 46),
    ]


def test_crash_fails_its_own_image_only() -> None:
    photos = [make_photo(seed) for seed in range(4)]
    with DecodePool(1, crash_on_deadly_bytes) as pool:
        first = pool.decode([photos[0], DEADLY, *photos[1:]])
        second = pool.decode(photos)
    faults = [image.reason for image in first if isinstance(image, DecodeFault)]
    assert faults == [Reason.DECODER_CRASHED]
    assert isinstance(first[1], DecodeFault)
    assert all(isinstance(image, DecodedImage) for image in second)


def test_processes_end_when_the_job_is_killed() -> None:
    program = (
        "import time\n"
        "from functools import partial\n"
        "from jobs.tagging.decode import DecodeLimits, decode_image\n"
        "from jobs.tagging.decode_pool import DecodePool\n"
        "with DecodePool(2, partial(decode_image, limits=DecodeLimits(10**6, 8, 64))) as pool:\n"
        "    pool.decode([b'', b''])\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
        workers = psutil.Process(job.pid).children(recursive=True)
        assert workers
        job.kill()
    deadline = time.monotonic() + 10
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "a decoding process outlived the job"
        time.sleep(0.05)
