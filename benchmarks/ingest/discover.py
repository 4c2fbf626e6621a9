"""Measure the time and memory of discovery on a long listing and an equally large catalog, compared with listing alone.

    python -m benchmarks.ingest.discover
    python -m benchmarks.ingest.discover --images 100000 --rounds 1

The listing is generated, and served on loopback in pages of 1,000 keys, as S3 does. Everything else is real: boto3, the
Postgres of the local stack, the schema and the code of the stage. Each measurement runs in its own process
(``--once``). A round first lists the bucket, then discovers an unchanged bucket, then one in which 1 % of the images
were deleted, 1 % were changed and 1 % are new. Each round has its own ratios, because machines are noisy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.ingest.listing_server import GeneratedBucket, serve_listing
from benchmarks.results import Row, format_range, publish
from benchmarks.stack import open_stack
from jobs.connections import connect
from jobs.database.engine import driver_url
from jobs.ingest.discover import discover_images
from jobs.settings import PROJECT_ROOT, load_settings

ENVIRONMENT = {
    "CATALOG_SOURCE_URI": "s3://generated/images/",
    "CATALOG_ARTIFACTS_URI": "s3://generated/artifacts/",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
}
UNDO_CHANGES = (
    "DELETE FROM catalog.images WHERE object_key LIKE '%new.jpg'",
    "UPDATE catalog.images SET etag = replace(etag, 'changed', '0000000') WHERE etag LIKE '%changed'",
    "UPDATE catalog.images SET deleted_at = NULL WHERE deleted_at IS NOT NULL",
    "UPDATE catalog.images SET content_hash = sha256(object_key::bytea) WHERE content_hash IS NULL",
)
LIST, DISCOVER = "list", "discover"


@dataclass(frozen=True)
class Measurement:
    """The time, peak resident memory and counts of one process."""

    seconds: float
    peak_memory_bytes: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Round:
    """The listing alone, and two discoveries with listings of the same length."""

    listing: Measurement
    unchanged: Measurement
    changed: Measurement


def main() -> None:
    """Fill a catalog with a first discovery, measure later ones, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", choices=(LIST, DISCOVER), help="measure in this process the source of the settings")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(asdict(measure_once(arguments.once))))
        return
    with (
        serve_listing(GeneratedBucket(arguments.images, is_changed=False)) as same,
        serve_listing(GeneratedBucket(arguments.images, is_changed=True)) as changed,
        open_stack() as stack,
    ):
        first = _run(DISCOVER, same, stack.database_url)
        settle_catalog(stack.database_url)
        rounds = [_measure_round(same, changed, stack.database_url) for _ in range(arguments.rounds)]
    listing = [one.listing for one in rounds]
    publish(
        "A listing of a million keys",
        f"The listing of a generated bucket of {arguments.images:,} keys, served on loopback in pages of 1,000 and "
        "compared with a catalog of as many images, each in a process of its own; medians of "
        f"{arguments.rounds} interleaved rounds.",
        [
            _make_row("listing alone", listing, listing),
            _make_row("discover, nothing changed", [one.unchanged for one in rounds], listing),
            _make_row("discover; 1 % deleted, 1 % changed, 1 % new", [one.changed for one in rounds], listing),
            _make_row("first discovery, once", [first], []),
        ],
        targets="ratio 2.0, 300 MB",
        packages=["boto3", "sqlalchemy", "psycopg2-binary"],
    )


def measure_once(command: str) -> Measurement:
    """List the source, or discover and commit. The memory includes that of the imports."""
    with connect(load_settings()) as connections:
        started = time.perf_counter()
        if command == LIST:
            counts = {"listed": sum(len(page) for page in connections.store.list_pages(connections.source))}
        else:
            with connections.engine.begin() as connection:
                counts = asdict(discover_images(connection, connections))
        seconds = time.perf_counter() - started
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return Measurement(seconds, peak, counts)


def _measure_round(same: str, changed: str, database_url: str) -> Round:
    measured = Round(
        listing=_run(LIST, same, database_url),
        unchanged=_run(DISCOVER, same, database_url),
        changed=_run(DISCOVER, changed, database_url),
    )
    settle_catalog(database_url)
    return measured


def _run(command: str, endpoint: str, database_url: str) -> Measurement:
    return run_once(command, {"CATALOG_DATABASE_URL": database_url, "CATALOG_S3_ENDPOINT_URL": endpoint, **ENVIRONMENT})


def run_once(command: str, environment: Mapping[str, str]) -> Measurement:
    """Measure a command in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.ingest.discover", "--once", command]
    finished = subprocess.run(
        words, cwd=PROJECT_ROOT, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE
    )
    measurement = Measurement(**json.loads(finished.stdout.splitlines()[-1]))
    print(f"  {command}: {measurement.seconds:.1f} s, {measurement.counts}", flush=True)
    return measurement


def settle_catalog(database_url: str) -> None:
    """Restore the catalog to its state after a run on the unchanged bucket: all images read, statistics up to date."""
    engine = create_engine(driver_url(database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in (*UNDO_CHANGES, "VACUUM ANALYZE"):
            connection.execute(text(statement))
    engine.dispose()


def _make_row(case: str, measured: list[Measurement], listing: list[Measurement]) -> Row:
    ratios = [one.seconds / alone.seconds for one, alone in zip(measured, listing, strict=False)]
    return {
        "case": case,
        "seconds": round(statistics.median(one.seconds for one in measured), 1),
        "ratio to listing alone": format_range(ratios, 2) if ratios else None,
        "peak memory, MB": round(max(one.peak_memory_bytes for one in measured) / 1e6),
    }


if __name__ == "__main__":
    main()
