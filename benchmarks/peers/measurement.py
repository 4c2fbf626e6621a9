"""Define the command line, the predictions, the timing and the output that all peers share.

    python -m benchmarks.peers.NAME CLASSIFIER_FOLDER ENCODER_FOLDER IMAGES_FOLDER [--dtype fp32|bf16] [--images N]

The measured time starts when the first image is read and ends when the last prediction is in memory. It excludes
imports, the start of an engine, the loading of models, and a warm-up on `WARM_UP_IMAGES`, which are predicted again
afterward.
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
WARM_UP_IMAGES = 2 * BATCH_SIZE
MEMORY_PERIOD_SECONDS = 0.2


@dataclass(frozen=True)
class Work:
    """The input of a peer. ``workers`` is the number of loading processes, for the DataLoader only."""

    classifier: Path
    encoder: Path
    images: Sequence[Path]
    dtype: str
    workers: int

    @property
    def warm_up(self) -> Sequence[Path]:
        """Return the images to warm up with. Their predictions and time do not count."""
        return self.images[:WARM_UP_IMAGES]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image; the vector is not scaled to unit length."""

    category: str
    confidence: float
    vector: np.ndarray


@dataclass(frozen=True)
class TimedPredictions:
    """The prediction of each image, and the measured time as defined in this module."""

    predictions: dict[Path, Prediction]
    seconds: float


def measure_peer(tag: Callable[[Work], TimedPredictions], packages: Sequence[str]) -> None:
    """Run a peer with the options of the command line; print its figures and the versions of ``packages``."""
    work = _read_command_line()
    with _watch_memory() as peak_memory_bytes:
        tagged = tag(work)
        peak = peak_memory_bytes()
    _check_predictions(tagged.predictions, work)
    figures = {
        "images": len(tagged.predictions),
        "seconds": tagged.seconds,
        "images_per_second": len(tagged.predictions) / tagged.seconds,
        "peak_memory_bytes": peak,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
    print(json.dumps(figures))


def _read_command_line() -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("classifier", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("images_folder", type=Path)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--images", type=int, help="all by default")
    parser.add_argument("--workers", type=int, default=0, help="loading processes, where a peer has them")
    arguments = parser.parse_args()
    images = sorted(arguments.images_folder.absolute().rglob("*.jpg"))[: arguments.images]
    if not images:
        parser.error(f"no image *.jpg in {arguments.images_folder}")
    return Work(
        arguments.classifier.absolute(), arguments.encoder.absolute(), images, arguments.dtype, arguments.workers
    )


def _check_predictions(predictions: dict[Path, Prediction], work: Work) -> None:
    """Check that no image was skipped, which would make a peer look fast."""
    assert predictions.keys() == set(work.images), f"{len(predictions)} predictions for {len(work.images)} images"
    assert all(
        np.isfinite(prediction.vector).all() and 0 < prediction.confidence <= 1 for prediction in predictions.values()
    )


@contextmanager
def _watch_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak resident memory of this process and its descendants."""
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
    """Return the time in seconds, from a clock that all processes of this machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
