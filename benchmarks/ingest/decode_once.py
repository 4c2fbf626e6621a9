"""Measure reading, decoding and feeding in a process that loads no models.

python -m benchmarks.ingest.decode_once rates
python -m benchmarks.ingest.decode_once simulate RUN SECONDS_PER_IMAGE
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from threading import Lock

import numpy as np
import psutil

from fixtures.shop import change_settings
from jobs.connections import Connections, connect
from jobs.database.model_builds import DeviceClass, EngineName, list_builds
from jobs.database.model_versions import MODEL_KINDS, require_champion
from jobs.database.tagging_work import DueImage
from jobs.images.decode import DecodeFailure, DecodeLimits, PreparedImage, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.ingest.pipeline import RunPredictor
from jobs.ingest.read import ImageBytes, read_image
from jobs.ingest.tag_shard import tag_shard
from jobs.ingest.write import UsedBuilds
from jobs.models.predictor import Predictor
from jobs.settings import load_settings

SIDE = 224
GEOMETRY = Geometry(SIDE, SIDE, keep_aspect=True, interpolation="bicubic")
DIMENSIONS = 512
BATCH_SIZE = 64
PASSES = 2
"""Concurrent forward passes. On a GPU, torch runs two."""
Prepare = Callable[[bytes], PreparedImage | DecodeFailure]


@dataclass(frozen=True)
class Cpu:
    """The CPU time of this process and of its children, in seconds."""

    own: float
    children: float

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(self.own - earlier.own, self.children - earlier.children)


@dataclass(frozen=True)
class Rate:
    """Images per second, and the CPU time per image in milliseconds: of this process and of the decoding processes."""

    images_per_second: float
    own_milliseconds: float
    children_milliseconds: float


@dataclass(frozen=True)
class Rates:
    """The rate of each stage alone."""

    read: Rate
    one_process: Rate
    two_processes: Rate


@dataclass(frozen=True)
class Feeding(Rate):
    """The rate of a shard that feeds a consumer, and the share of time that the consumer spent waiting."""

    waited: float


def read_cpu() -> Cpu:
    """Return the CPU time used so far."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return Cpu(time.process_time(), sum(one.user + one.system for one in times))


def measure_rates(to: Connections) -> Rates:
    """Read all images of the source into memory, then decode them in one process and in two."""
    prepare = partial(
        prepare_image,
        limits=DecodeLimits(to.settings.images.max_pixels, 1, target_side=2 * SIDE),
        geometries=[GEOMETRY],
    )
    contents: list[bytes] = []
    listed = [one for page in to.store.list_pages(to.source) for one in page]

    def read() -> None:
        due = [DueImage(0, one.key, one.etag, one.size_bytes, "new", True, True) for one in listed]
        read_one = partial(read_image, to.store, to.source.bucket, max_bytes=to.settings.images.max_object_bytes)
        with ThreadPoolExecutor(to.settings.compute.read_threads) as readers:
            contents.extend(one.content for one in readers.map(read_one, due) if isinstance(one, ImageBytes))

    return Rates(
        read=_measure(read, len(listed)),
        one_process=_measure_pool(1, prepare, contents),
        two_processes=_measure_pool(2, prepare, contents),
    )


def _measure_pool(processes: int, prepare: Prepare, contents: Sequence[bytes]) -> Rate:
    """Decode two batches at a time, as a shard does."""
    batches = [contents[start : start + BATCH_SIZE] for start in range(0, len(contents), BATCH_SIZE)]
    with DecodePool(processes) as pool, ThreadPoolExecutor(2) as stage:
        decode = partial(pool.decode, prepare)
        for _ in stage.map(decode, [contents[:BATCH_SIZE]] * 2):
            pass

        def run() -> None:
            for _ in stage.map(decode, batches):
                pass

        return _measure(run, len(contents))


def _measure(work: Callable[[], object], images: int) -> Rate:
    started, before = time.perf_counter(), read_cpu()
    work()
    seconds, used = time.perf_counter() - started, read_cpu() - before
    return Rate(images / seconds, used.own / images * 1000, used.children / images * 1000)


@dataclass
class SimulatedGpu:
    """A consumer that takes time for each batch, but no CPU. It waits whenever its queue is empty.

    It is measured from the start of its first batch to the start of its last.
    """

    seconds_per_image: float
    waited_seconds: float = 0.0
    free_at: float | None = None
    starts: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def compute(self, images: int) -> None:
        """Block for the time that a GPU would take for a batch."""
        with self.lock:
            now = time.perf_counter()
            start = max(now, self.free_at or now)
            self.waited_seconds += start - (self.free_at or start)
            self.starts.append(start)
            self.images.append(images)
            done = self.free_at = start + images * self.seconds_per_image
        time.sleep(max(0.0, done - time.perf_counter()))


@dataclass(frozen=True)
class StandIn:
    """A model that returns meaningless predictions after ``compute``."""

    compute: Callable[[int], None]
    outputs: int
    engine: EngineName = "torch"
    description: str = "simulated"
    device_class: DeviceClass = "cpu"
    geometry: Geometry = GEOMETRY
    batch_size: int = BATCH_SIZE
    passes: int = PASSES

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the names of a classifier's outputs."""
        return tuple(f"category-{number}" for number in range(self.outputs))

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return predictions of the right shape, with vectors of unit length."""
        self.compute(len(pixels))
        return np.full((len(pixels), self.outputs), self.outputs**-0.5, dtype=np.float32)


def _find_builds(to: Connections) -> UsedBuilds:
    """Return builds of the champions. The stand-ins pass for them."""
    with to.engine.connect() as connection:
        champions = [require_champion(connection, kind) for kind in MODEL_KINDS]
        classifier, encoder = (list_builds(connection, one.model_version_id)[0].build_id for one in champions)
    return UsedBuilds(classifier, encoder, "cpu")


def simulate(to: Connections, run_id: str, seconds_per_image: float) -> Feeding:
    """Tag the only shard of a planned run. The classifier takes ``seconds_per_image``, the encoder no time."""
    gpu = SimulatedGpu(seconds_per_image)
    predictor = Predictor(StandIn(gpu.compute, 10), StandIn(lambda _: None, DIMENSIONS))
    models = RunPredictor(predictor, _find_builds(to))
    with DecodePool(to.settings.compute.decode_processes) as pool:
        pool.decode(len, [b""] * BATCH_SIZE)
        before = read_cpu()
        report = tag_shard(to, run_id, 0, lambda _: models, pool)
        used = read_cpu() - before
    seconds = gpu.starts[-1] - gpu.starts[0]
    return Feeding(
        images_per_second=sum(gpu.images[:-1]) / seconds,
        own_milliseconds=used.own / report.entries * 1000,
        children_milliseconds=used.children / report.entries * 1000,
        waited=gpu.waited_seconds / seconds,
    )


def main(command: str, *arguments: str) -> None:
    """Print the measurement as JSON. The optional third argument is the number of reading threads."""
    settings = load_settings()
    if readers := arguments[2:]:
        settings = change_settings(settings, read_threads=int(readers[0]))
    with connect(settings) as connections:
        if command == "rates":
            measured: Rates | Feeding = measure_rates(connections)
        else:
            measured = simulate(connections, arguments[0], float(arguments[1]))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(*sys.argv[1:])
