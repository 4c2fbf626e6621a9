"""Measure how much a slow bucket slows down an ingest, and how much two concurrent shards slow down each other.

    python -m benchmarks.ingest.conditions
    python -m benchmarks.ingest.conditions --images 200 --rounds 1

Slow bucket: an ingest reads through a relay without delays, then through one that delays each request by 20 ms, and 2 %
of the GETs by 200 ms. The reference needs the relay too, because it runs on the same cores. Concurrent shards:
`tag-shard` tags half of the images alone, then both halves at the same time. Models are int8. Each round has its own
ratios, because machines are noisy.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.images import find_images
from benchmarks.ingest.delay_relay import NO_DELAYS, SLOW_BUCKET, Delays, run_delay_relay
from benchmarks.results import Row, format_range, format_share, publish
from benchmarks.tagging_stack import TaggingStack, delete_results, open_int8_stack, run_ingest
from jobs.database.run_history import sum_chunks


@dataclass(frozen=True)
class Measurement:
    """The total speed of all shards, and the share of their time spent waiting for the bucket."""

    images_per_second: float
    waiting_for_bucket: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A measurement under a condition, and one of the same images without it."""

    condition: Measurement
    reference: Measurement

    @property
    def ratio(self) -> float:
        """Return the speed under the condition as a share of the reference."""
        return self.condition.images_per_second / self.reference.images_per_second


def main() -> None:
    """Measure all rounds and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = find_images(arguments.images)
    comparisons: dict[str, list[Comparison]] = {"slow bucket": [], "two shards at once": []}
    with open_int8_stack(images.paths) as stack:
        for number in range(arguments.rounds):
            comparisons["slow bucket"].append(_compare_bucket(stack, len(images.paths)))
            comparisons["two shards at once"].append(_compare_shards(stack, number, len(images.paths)))
    publish(
        "A slow bucket and parallel shards",
        f"{images} in int8, through a relay that delays each request by 20 ms and 2 % of the GETs by 200 ms, compared "
        "with a relay without delay; and in two shards at once, compared with one. Medians of "
        f"{arguments.rounds} rounds.",
        [_make_row(condition, measured) for condition, measured in comparisons.items()],
        targets="ratios of 0.95",
        packages=["openvino", "obstore"],
    )


def _compare_bucket(stack: TaggingStack, images: int) -> Comparison:
    reference, slow = (_measure_relayed(stack, delays, images) for delays in (NO_DELAYS, SLOW_BUCKET))
    return Comparison(slow, reference)


def _measure_relayed(stack: TaggingStack, delays: Delays, images: int) -> Measurement:
    delete_results(stack)
    with run_delay_relay(stack.s3_url, delays) as url:
        report = run_ingest(replace(stack, environment=stack.environment | {"CATALOG_S3_ENDPOINT_URL": url})).report
    assert report["tagged"] + report["reused"] == images, report
    return Measurement(report["images_per_second"], report["waiting"]["bucket"]["share"])


def _compare_shards(stack: TaggingStack, number: int, images: int) -> Comparison:
    alone = _measure_shards(stack, f"alone-{number}", [0], images)
    return Comparison(_measure_shards(stack, f"both-{number}", [0, 1], images), alone)


def _measure_shards(stack: TaggingStack, run: str, shards: Sequence[int], images: int) -> Measurement:
    """Tag one or both shards of a run. Read the speed from the ledger, which excludes the start and end of a job."""
    delete_results(stack)
    half = -(-images // 2)
    sizes = {"CATALOG_SHARD_SIZE": str(half)}
    environment = os.environ | stack.environment | sizes
    command = [sys.executable, "-m", "jobs"]
    subprocess.run([*command, "discover", "--run", run], env=environment, check=True, capture_output=True)
    processes = [
        subprocess.Popen(
            [*command, "tag-shard", str(shard), "--run", run],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for shard in shards
    ]
    if any(code for code in [process.wait() for process in processes]):
        sys.exit(f"a shard of {run} failed")
    with stack.connections.engine.connect() as connection:
        totals = sum_chunks(connection, run)
    assert totals.failed == 0
    assert totals.images_per_second is not None
    return Measurement(totals.images_per_second)


def _make_row(condition: str, measured: Sequence[Comparison]) -> Row:
    row: dict[str, str | float | None] = {
        "condition": condition,
        "images/s": round(statistics.median(one.condition.images_per_second for one in measured), 1),
        "reference, images/s": round(statistics.median(one.reference.images_per_second for one in measured), 1),
        "ratio": format_range([one.ratio for one in measured], 3),
    }
    for column, waits in (
        ("waiting for the bucket", [one.condition.waiting_for_bucket for one in measured]),
        ("reference, waiting", [one.reference.waiting_for_bucket for one in measured]),
    ):
        known = [wait for wait in waits if wait is not None]
        row[column] = format_share(statistics.median(known)) if known else None
    return row


if __name__ == "__main__":
    main()
