"""What all peers have in common: the command line, the answers, the clock's meaning and the line of JSON.

python -m benchmarks.peers.NAME CLASSIFIER_FOLDER ENCODER_FOLDER PHOTOS_FOLDER [--dtype fp32|bf16] [--photos N]

Seconds go from the first read of a photo to the last answer in memory. What comes before does not count: imports, the
start of an engine, the loading of the models, and `WARM_UP_PHOTOS` that are answered once more afterwards.
"""

import argparse
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

BATCH_SIZE = 32
WARM_UP_PHOTOS = 2 * BATCH_SIZE
MEMORY_PERIOD_SECONDS = 0.2


@dataclass(frozen=True)
class Work:
    """What a peer is asked for; ``workers`` are loading processes, which the DataLoader alone knows."""

    classifier: Path
    encoder: Path
    photos: Sequence[Path]
    dtype: str
    workers: int

    @property
    def warm_up(self) -> Sequence[Path]:
        """The photos to begin with, whose answers and time do not count."""
        return self.photos[:WARM_UP_PHOTOS]


@dataclass(frozen=True)
class Answer:
    """Of one photo; the vector as the encoder projects it, not scaled to unit length."""

    category: str
    confidence: float
    vector: np.ndarray


@dataclass(frozen=True)
class Tagged:
    """The answers by photo, and the seconds that they took as the module's docstring defines them."""

    answers: dict[Path, Answer]
    seconds: float


def measure_peer(tag: Callable[[Work], Tagged], packages: Sequence[str]) -> None:
    """Do the work of the command line and print the figures; ``packages`` are those whose version matters."""
    work = _read_command_line()
    with _watch_memory() as peak_memory_bytes:
        tagged = tag(work)
        peak = peak_memory_bytes()
    _check_answers(tagged.answers, work)
    figures = {
        "images": len(tagged.answers),
        "seconds": tagged.seconds,
        "images_per_second": len(tagged.answers) / tagged.seconds,
        "peak_memory_bytes": peak,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
    print(json.dumps(figures))


def _read_command_line() -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("classifier", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("photos_folder", type=Path)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--photos", type=int, help="all by default")
    parser.add_argument("--workers", type=int, default=0, help="loading processes, where a peer has them")
    arguments = parser.parse_args()
    photos = sorted(arguments.photos_folder.absolute().rglob("*.jpg"))[: arguments.photos]
    if not photos:
        parser.error(f"no photo *.jpg in {arguments.photos_folder}")
    return Work(
        arguments.classifier.absolute(), arguments.encoder.absolute(), photos, arguments.dtype, arguments.workers
    )


def _check_answers(answers: dict[Path, Answer], work: Work) -> None:
    """A peer that left photos out would look fast."""
    assert answers.keys() == set(work.photos), f"{len(answers)} answers for {len(work.photos)} photos"
    assert all(np.isfinite(answer.vector).all() and 0 < answer.confidence <= 1 for answer in answers.values())


@contextmanager
def _watch_memory() -> Iterator[Callable[[], int]]:
    """The peak of resident memory so far, of this process and all below it; what they share counts in each."""
    peaks, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(MEMORY_PERIOD_SECONDS):
            peaks[0] = max(peaks[0], _measure_memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(peaks[0], _measure_memory())
    finally:
        done.set()
        thread.join()


def _measure_memory() -> int:
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def read_clock() -> float:
    """Seconds of a clock that all processes of this machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
