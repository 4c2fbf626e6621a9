"""What a machine has to have to feed a GPU: rates of reading and decoding a core, and a simulated GPU that is fed.

    python -m benchmarks.ingest.decode
    python -m benchmarks.ingest.decode --photos 200

Real photos of 400 x 533, and the same enlarged to 1200 x 1600, lie in a real S3 endpoint. First each stage is measured
by itself, then a real shard feeds a stand-in for the models that takes time but no processor: as long for an image as
this machine's share of the cores of a whole one lets it (0.5 ms of 16 cores are 4 ms of 2), then no time at all, and
then no time from a bucket that answers late. Endpoint and Postgres run on the same cores. Processor time for each photo
is what to size by: it depends little on what else the machine does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ingest.delayed_endpoint import SLOW_BUCKET, delay_endpoint
from benchmarks.ingest.feed_once import DIMENSIONS, SIDE, Feeding, Rate, Rates
from benchmarks.machine import describe_machine
from benchmarks.materials import enlarge_photos, find_photos
from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18
from fixtures.champions import make_champion
from fixtures.stack_access import read_environment
from jobs.connections import Connections, connect
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack
from jobs.settings import PROJECT_ROOT, load_settings

GPU_SECONDS_PER_IMAGE = 0.0005
ENDPOINT = "CATALOG_S3_ENDPOINT_URL"
MANY_READERS = {"CATALOG_READ_THREADS": "64"}


@dataclass(frozen=True)
class Measurement:
    """The stages, a shard that feeds the share of a GPU, and two as fast as they can, the last over delays."""

    rates: Rates
    fed: Feeding
    unbounded: Feeding
    delayed: Feeding

    @property
    def cores_for_the_gpu(self) -> float:
        """The cores that a shard takes at the GPU's full speed, by the dearer of two."""
        used = max(one.own_milliseconds + one.children_milliseconds for one in (self.fed, self.unbounded))
        return used / 1000 / GPU_SECONDS_PER_IMAGE


def main() -> None:
    """Run the benchmark, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000, help="of each size")
    parser.add_argument("--cores-of-the-machine", type=int, default=16, help="of the whole machine with the GPU")
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-decode.json")
    arguments = parser.parse_args()
    photos = find_photos(arguments.photos)
    seconds_per_image = GPU_SECONDS_PER_IMAGE * arguments.cores_of_the_machine / len(os.sched_getaffinity(0))
    measured = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _open_stack() as (environment, connections):
        large = enlarge_photos(photos.paths, Path(folder) / "large")
        for name, paths in (("400x533", photos.paths), ("1200x1600", large)):
            for number, path in enumerate(paths):
                connections.store.upload(path, connections.source / name / f"sku{number:05d}.jpg")
            source = {"CATALOG_SOURCE_URI": f"{connections.source}{name}/"}
            measured[name] = _measure_size(environment | source, name, seconds_per_image)
    summary = {
        **describe_machine("pillow", "obstore", "cykooz-resizer"),
        "photo_kind": photos.kind,
        "gpu_seconds_per_image": seconds_per_image,
        "sizes": {name: asdict(one) | {"cores_for_the_gpu": one.cores_for_the_gpu} for name, one in measured.items()},
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    print(f"{len(photos.paths)} {photos.kind}; {summary['cores']} cores of {summary['processor']}")
    for name, one in measured.items():
        _print_size(name, one, seconds_per_image)


@contextmanager
def _open_stack() -> Iterator[tuple[dict[str, str], Connections]]:
    """A stack with champions that plan a run and are never loaded; its space has no index yet, as in a first run."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        folder = Path(parent) / "stack"
        try:
            start_stack(folder, WantedPorts(), None)
            environment = os.environ | read_environment(folder)
            migrate(environment["CATALOG_DATABASE_URL"])
            os.environ.update(environment)
            with connect(load_settings()) as connections:
                _make_champions(connections, Path(parent))
                yield environment, connections
        finally:
            stop_stack(folder)


def _make_champions(connections: Connections, folder: Path) -> None:
    classifier, encoder = folder / "classifier", folder / "encoder"
    write_blank_resnet18(classifier, SIDE, ["a", "b"])
    write_blank_clip(encoder, SIDE, patch_side=32, width=64, dimensions=DIMENSIONS, layers=1, texts=["a dress"])
    make_champion(connections, classifier, "classifier")
    make_champion(connections, encoder, "encoder")


def _measure_size(environment: dict[str, str], name: str, seconds_per_image: float) -> Measurement:
    rates = _call(environment, "rates")
    read, decode, one, two = (Rate(**rates.pop(stage)) for stage in ("read", "decode", "one_process", "two_processes"))
    fed = _simulate(environment, f"fed-{name}", seconds_per_image)
    unbounded = _simulate(environment, f"unbounded-{name}", 0.0)
    with delay_endpoint(environment[ENDPOINT], SLOW_BUCKET) as relay:
        delayed = _simulate(environment | MANY_READERS | {ENDPOINT: relay.url}, f"delayed-{name}", 0.0)
    return Measurement(
        Rates(**rates, read=read, decode=decode, one_process=one, two_processes=two), fed, unbounded, delayed
    )


def _simulate(environment: dict[str, str], run: str, seconds_per_image: float) -> Feeding:
    command = [sys.executable, "-m", "jobs", "discover", "--force", "--run", run]
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True)
    return Feeding(**_call(environment, "simulate", run, str(seconds_per_image)))


def _call(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ingest.feed_once", *arguments]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def _print_size(name: str, measured: Measurement, seconds_per_image: float) -> None:
    rates = measured.rates
    print(f"\n{name}: {rates.bytes_per_image / 1000:.0f} kB through pipes for each photo")
    print(" | ".join(["stage", "images/s", "CPU of the job, ms a photo", "of its decoding processes"]))
    for stage, rate in (
        ("read, 8 threads", rates.read),
        ("decode in the same process", rates.decode),
        ("decode in one process", rates.one_process),
        ("decode in two processes", rates.two_processes),
        (f"a shard for a GPU of {seconds_per_image * 1000:.1f} ms", measured.fed),
        ("a shard for one of 0 ms", measured.unbounded),
        ("the same from a slow bucket, 64 threads", measured.delayed),
    ):
        cells = (f"{rate.images_per_second:.0f}", f"{rate.own_milliseconds:.2f}", f"{rate.children_milliseconds:.2f}")
        print(" | ".join([stage, *cells]))
    print(f"the simulated GPU waited {measured.fed.waited:.1%} of its time")
    print(
        f"{1 / GPU_SECONDS_PER_IMAGE:.0f} images/s take {measured.cores_for_the_gpu:.1f} such cores and "
        f"{rates.bytes_per_image / GPU_SECONDS_PER_IMAGE / 1e6:.0f} MB/s of pipes"
    )


if __name__ == "__main__":
    main()
