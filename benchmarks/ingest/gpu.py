"""Measure a whole nightly run on one machine: bucket, job, models, Postgres and its live index.

    python -m benchmarks.ingest.gpu
    python -m benchmarks.ingest.gpu --images 400 --indexed 2000      a trial on a CPU

The images have distinct bytes and are in a real S3 endpoint on the same machine. ResNet-18 and CLIP ViT-B/32 of real
size with random weights run as exported programs in bf16. The live index contains vectors already, and a client
searches it all the time. The run is compared with its limits: the decoding processes alone, and the bare forward pass.
"""

import argparse
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import which

import numpy as np
import torch
from sqlalchemy import text

from benchmarks.images import enlarge_images, find_images, multiply_images
from benchmarks.models import ModelFolders, ModelFormat, build_artifacts, write_checkpoints
from benchmarks.results import Row, format_share, publish
from benchmarks.search.generated_catalog import copy_vectors, make_catalog
from benchmarks.tagging_stack import IngestRun, TaggingStack, measure_forward, open_tagging_stack, run_ingest
from jobs.cores import count_cores
from jobs.database.spaces import find_live_space, lock_space
from jobs.images.decode import DecodeLimits, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.models.device import choose_device
from jobs.storage.locations import S3Uri

BASE_IMAGES = 150
SIDE = 224
BATCH = 256
DECODE_SECONDS = 5.0
LISTING_SECONDS = 12.0
"""The endpoint caches its listing for ten seconds."""
TARGETS = (
    "on one H100 or H200 with 16 cores: 4,000 images/s while working, 100,000 images in 45 s; 1,500 images/s of "
    "1200 x 1600; first batch after 8 s; 6,000 rows/s"
)


@dataclass
class Watch:
    """What was observed during a run: latencies of searches in seconds, and utilization of the GPU in percent."""

    searches: list[float] = field(default_factory=list)
    utilization: list[float] = field(default_factory=list)


def main() -> None:
    """Measure both image sizes and publish one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="of 400 x 533")
    parser.add_argument("--large-images", type=int, default=10_000, help="of 1200 x 1600")
    parser.add_argument("--indexed", type=int, default=100_000, help="vectors in the live index beforehand")
    arguments = parser.parse_args()
    device = choose_device("auto", "bf16")
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        scratch = Path(parent)
        base = find_images(BASE_IMAGES).paths
        models = build_artifacts(
            write_checkpoints(scratch), ModelFormat("torch", device.precision), base, scratch / "t"
        )
        with open_tagging_stack(base[:16], models) as stack:
            fill_index(stack, arguments.indexed)
            sizes = (
                ("400 x 533", base, arguments.images),
                ("1200 x 1600", enlarge_images(base, scratch / "large"), arguments.large_images),
            )
            rows = [measure_size(stack, models, *size) for size in sizes if size[2]]
    name = torch.cuda.get_device_name() if device.is_cuda else "no GPU"
    publish(
        "A night on a GPU",
        f"Images with distinct bytes, from an S3 endpoint into Postgres with a live index of {arguments.indexed:,} "
        f"vectors, all on one machine with {name}: ResNet-18 and CLIP ViT-B/32 in {device.precision}, one run.",
        rows,
        targets=TARGETS,
        packages=["torch", "obstore", "pillow"],
    )


def fill_index(stack: TaggingStack, vectors: int) -> None:
    """Add generated vectors to the live space, under images outside the source of the run."""
    catalog = make_catalog(vectors)
    with stack.connections.engine.begin() as connection:
        space_id = find_live_space(connection)
        assert space_id is not None
        lock_space(connection, space_id)
        (first,) = connection.execute(text("SELECT max(image_id) + 1 FROM catalog.images")).one()
        connection.execute(
            text("""
                INSERT INTO catalog.products (product_id)
                SELECT 'generated' || number FROM generate_series(1, :count) AS number
            """),
            {"count": len(catalog.vectors)},
        )
        connection.execute(
            text("""
                INSERT INTO catalog.images (image_id, bucket, object_key, product_id, etag, size_bytes, content_hash)
                OVERRIDING SYSTEM VALUE
                SELECT :first + number - 1, 'elsewhere', number || '.jpg', 'generated' || number, 'etag', 1,
                       decode(lpad(to_hex(:first + number - 1), 64, '0'), 'hex')
                FROM generate_series(1, :count) AS number
            """),
            {"first": first, "count": len(catalog.vectors)},
        )
        connection.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('catalog.images', 'image_id'), max(image_id)) FROM catalog.images"
            )
        )
        copy_vectors(connection, space_id, first, catalog.vectors)
    with stack.connections.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def measure_size(stack: TaggingStack, models: ModelFolders, name: str, base: list[Path], count: int) -> Row:
    """Put images into the bucket, and tag them while a client searches."""
    prefix = name.replace(" ", "")
    bucket = Path(stack.status.folder) / "buckets" / stack.connections.source.bucket
    multiply_images(base, count, bucket / prefix)
    time.sleep(LISTING_SECONDS)
    before, during = Watch(), Watch()
    with watch(stack, before):
        time.sleep(DECODE_SECONDS)
    started = time.perf_counter()
    with watch(stack, during):
        run = run_ingest(stack, "--source", str(S3Uri(stack.connections.source.bucket, f"{prefix}/")))
    seconds = time.perf_counter() - started
    row = _make_row(name, run, seconds, measure_decoding(base), measure_forward(models), before, during)
    print(f"  {row}", flush=True)
    return row


def _make_row(
    name: str, run: IngestRun, seconds: float, decoding: float, forward: float, before: Watch, during: Watch
) -> Row:
    report = run.report
    speed = report["images_per_second"]
    return {
        "images": f"{report['entries']:,} of {name}",
        "failed": report["failed"],
        "images/s while working": round(speed),
        "share of decoding": format_share(speed / decoding),
        "share of the forward pass": format_share(speed / forward),
        "decoding alone": round(decoding),
        "forward pass alone": round(forward),
        "command to report, s": round(seconds, 1),
        "first batch, s": round(run.first_batch_seconds, 1),
        "rows/s of one connection": round(report["entries"] / report["write_seconds"]),
        "bottleneck": report["bottleneck"],
        "waiting": ", ".join(f"{stage} {format_share(wait['share'])}" for stage, wait in report["waiting"].items()),
        "GPU busy": format_share(float(np.mean(during.utilization)) / 100) if during.utilization else "no GPU",
        "search p50 and p99, ms; during the run": "; ".join(map(_format_latency, (before, during))),
    }


def _format_latency(watched: Watch) -> str:
    p50, p99 = np.percentile(watched.searches, [50, 99]) * 1000
    return f"{p50:.1f} and {p99:.1f}"


@contextmanager
def watch(stack: TaggingStack, found: Watch) -> Iterator[None]:
    """Search the live space without pause, and read the utilization of the GPU every half second."""
    stop = threading.Event()

    def search() -> None:
        with stack.connections.engine.connect() as connection:
            statement = text("SELECT count(*) FROM catalog.similar_images(:image, 10)")
            image_id = connection.execute(text("SELECT min(image_id) FROM catalog.image_embeddings")).scalar_one()
            while not stop.is_set():
                started = time.perf_counter()
                connection.execute(statement, {"image": image_id})
                connection.commit()
                found.searches.append(time.perf_counter() - started)
                time.sleep(0.01)

    def read_utilization() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while which("nvidia-smi") and not stop.wait(0.5):
            output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
            found.utilization.append(float(output.splitlines()[0]))

    with ThreadPoolExecutor(2) as threads:
        watchers = [threads.submit(search), threads.submit(read_utilization)]
        try:
            yield
        finally:
            stop.set()
    for watcher in watchers:
        watcher.result()


def measure_decoding(images: list[Path]) -> float:
    """Return the images per second that the decoding processes reach alone, two batches at a time as in a shard."""
    geometry = Geometry(SIDE, SIDE, keep_aspect=True, interpolation="bicubic")
    limits = DecodeLimits(100_000_000, 8, target_side=2 * SIDE)
    contents = [path.read_bytes() for path in images]
    batch = [contents[number % len(contents)] for number in range(BATCH)]
    with DecodePool(count_cores()) as pool, ThreadPoolExecutor(2) as stage:
        decode = partial(pool.decode, partial(prepare_image, limits=limits, geometries=[geometry]))
        list(stage.map(decode, [batch] * 2))
        started = time.perf_counter()
        done = 0
        while time.perf_counter() - started < DECODE_SECONDS:
            done += sum(len(decoded) for decoded in stage.map(decode, [batch] * 4))
        return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
