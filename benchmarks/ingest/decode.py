"""Measure how fast a machine can feed a GPU: the rates of reading and decoding, and a shard with a simulated GPU.

    python -m benchmarks.ingest.decode
    python -m benchmarks.ingest.decode --images 200

Real images of 400 x 533, and the same images enlarged to 1200 x 1600, are in a real S3 endpoint. First, each stage is
measured alone. Then a real shard feeds a stand-in for the models, which takes time but no CPU. In the first run the
stand-in takes the time of a GPU scaled to the cores of this machine: 0.5 ms per image on 16 cores become 4 ms on 2. In
the second run it takes no time, and in the third run the bucket is slow too. The endpoint and Postgres share the cores.
To size a machine, use the CPU time per image, because it depends little on other load.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.images import enlarge_images, find_images
from benchmarks.ingest.decode_once import DIMENSIONS, SIDE, Feeding, Rate, Rates
from benchmarks.ingest.delay_relay import SLOW_BUCKET, run_delay_relay
from benchmarks.results import Row, format_share, publish
from benchmarks.stack import Stack, open_stack
from demo.blank_checkpoints import write_blank_clip, write_blank_resnet18
from fixtures.champions import make_champion
from jobs.connections import Connections, connect
from jobs.settings import PROJECT_ROOT, make_settings

GPU_SECONDS_PER_IMAGE = 0.0005
MANY_READERS = "64"


def main() -> None:
    """Measure both image sizes and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="of each size")
    parser.add_argument("--cores-of-the-machine", type=int, default=16, help="of the whole machine with the GPU")
    arguments = parser.parse_args()
    images = find_images(arguments.images)
    seconds_per_image = GPU_SECONDS_PER_IMAGE * arguments.cores_of_the_machine / len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _open_stack_with_champions() as (stack, connections):
        large = enlarge_images(images.paths, Path(folder) / "large")
        for name, paths in (("400 x 533", images.paths), ("1200 x 1600", large)):
            prefix = name.replace(" ", "")
            for number, path in enumerate(paths):
                connections.store.upload(path, connections.source / prefix / f"sku{number:05d}.jpg")
            environment = os.environ | stack.environment | {"CATALOG_SOURCE_URI": f"{connections.source}{prefix}/"}
            rows.append({"images": name, **_measure_size(environment, stack.s3_url, prefix, seconds_per_image)})
    publish(
        "Feeding a GPU",
        "Images per second of each stage alone, and of a real shard whose models are a stand-in that takes time but no "
        f"CPU: as much per image as 0.5 ms on a machine of {arguments.cores_of_the_machine} cores, then none. "
        f"{images}, and the same enlarged. Endpoint and Postgres share the cores. CPU is milliseconds per image.",
        rows,
        packages=["pillow", "obstore", "cykooz-resizer"],
    )


@contextmanager
def _open_stack_with_champions() -> Iterator[tuple[Stack, Connections]]:
    """Open a stack with champions, which a run needs but never loads. As in a first run, the space has no index."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as parent,
        open_stack() as stack,
        connect(make_settings(stack.environment)) as connections,
    ):
        classifier, encoder = Path(parent) / "classifier", Path(parent) / "encoder"
        write_blank_resnet18(classifier, SIDE, ["a", "b"])
        write_blank_clip(encoder, SIDE, patch_side=32, width=64, dimensions=DIMENSIONS, layers=1, texts=["a dress"])
        make_champion(connections, classifier, "classifier")
        make_champion(connections, encoder, "encoder")
        yield stack, connections


def _measure_size(environment: dict[str, str], s3_url: str, name: str, seconds_per_image: float) -> Row:
    rates = Rates(**{stage: Rate(**rate) for stage, rate in _call(environment, "rates").items()})
    fed = _simulate(environment, f"fed-{name}", seconds_per_image)
    unbounded = _simulate(environment, f"unbounded-{name}", 0.0)
    with run_delay_relay(s3_url, SLOW_BUCKET) as url:
        slow = _simulate(environment | {"CATALOG_S3_ENDPOINT_URL": url}, f"slow-{name}", 0.0, MANY_READERS)
    milliseconds = max(one.own_milliseconds + one.children_milliseconds for one in (fed, unbounded))
    return {
        "read, 8 threads": f"{rates.read.images_per_second:,.0f} ({rates.read.own_milliseconds:.2f} ms CPU)",
        "decode, 1 process": f"{rates.one_process.images_per_second:,.0f} "
        f"({rates.one_process.own_milliseconds + rates.one_process.children_milliseconds:.1f} ms CPU)",
        "decode, 2 processes": f"{rates.two_processes.images_per_second:,.0f}",
        f"shard, {seconds_per_image * 1000:.1f} ms GPU": f"{fed.images_per_second:,.0f}",
        "GPU waiting": format_share(fed.waited),
        "shard, 0 ms GPU": f"{unbounded.images_per_second:,.0f}",
        "the same, slow bucket and 64 readers": f"{slow.images_per_second:,.0f}",
        "CPU of the job; of decoding": f"{unbounded.own_milliseconds:.1f}; {unbounded.children_milliseconds:.1f}",
        f"cores for {1 / GPU_SECONDS_PER_IMAGE:,.0f} images/s": round(milliseconds / 1000 / GPU_SECONDS_PER_IMAGE, 1),
    }


def _simulate(environment: dict[str, str], run: str, seconds_per_image: float, *readers: str) -> Feeding:
    command = [sys.executable, "-m", "jobs", "discover", "--force", "--run", run]
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True)
    return Feeding(**_call(environment, "simulate", run, str(seconds_per_image), *readers))


def _call(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ingest.decode_once", *arguments]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
