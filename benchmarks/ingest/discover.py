"""Time and memory of comparing a long listing with a catalog that knows as many images, beside listing alone.

    python -m benchmarks.ingest.discover
    python -m benchmarks.ingest.discover --images 100000 --rounds 1

The listing is made up and served on loopback in pages of 1,000, as S3 gives them; boto3, Postgres as the local stack
runs it, the schema and the code of the stage are real. Each measurement has a process of its own. A round lists, then
discovers a bucket in which nothing changed, then one of which 1 % each vanished, changed and is new; ratios are taken
inside a round, since machines are noisy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.ingest.served_listing import MadeUpBucket, serve_listing
from benchmarks.machine import name_processor
from fixtures.stack_access import read_environment
from jobs.database.engine import driver_url
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack
from jobs.settings import PROJECT_ROOT

ENVIRONMENT = {
    "CATALOG_SOURCE_URI": "s3://made-up/photos/",
    "CATALOG_ARTIFACTS_URI": "s3://made-up/artifacts/",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
}
TAKE_BACK_CHANGES = (
    "DELETE FROM catalog.images WHERE object_key LIKE '%new.jpg'",
    "UPDATE catalog.images SET etag = replace(etag, 'changed', '0000000') WHERE etag LIKE '%changed'",
    "UPDATE catalog.images SET deleted_at = NULL WHERE deleted_at IS NOT NULL",
    "UPDATE catalog.images SET content_hash = sha256(object_key::bytea) WHERE content_hash IS NULL",
)


@dataclass(frozen=True)
class Measurement:
    """Of one process; memory is the most that was resident."""

    seconds: float
    peak_memory_bytes: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Round:
    """The listing alone, and discoveries of the same length."""

    listing: Measurement
    nothing_changed: Measurement
    some_changed: Measurement


def main() -> None:
    """Fill a catalog by its first discovery, measure the later ones, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-discover.json")
    arguments = parser.parse_args()
    with (
        serve_listing(MadeUpBucket(arguments.images, is_changed=False)) as same,
        serve_listing(MadeUpBucket(arguments.images, is_changed=True)) as changed,
        _open_database() as database_url,
    ):
        first = _run("discover", same, database_url)
        _settle_catalog(database_url)
        rounds = [_measure_round(same, changed, database_url) for _ in range(arguments.rounds)]
    summary = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": name_processor(),
        "images": arguments.images,
        "first_discovery": asdict(first),
        "rounds": [asdict(one) for one in rounds],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    _print_table(first, rounds)


def _measure_round(same: str, changed: str, database_url: str) -> Round:
    measured = Round(
        listing=_run("list", same, database_url),
        nothing_changed=_run("discover", same, database_url),
        some_changed=_run("discover", changed, database_url),
    )
    _settle_catalog(database_url)
    return measured


def _run(command: str, endpoint: str, database_url: str) -> Measurement:
    environment = {"CATALOG_DATABASE_URL": database_url, "CATALOG_S3_ENDPOINT_URL": endpoint, **ENVIRONMENT}
    words = [sys.executable, "-m", "benchmarks.ingest.discover_once", command]
    finished = subprocess.run(words, cwd=PROJECT_ROOT, env=os.environ | environment, check=True, stdout=subprocess.PIPE)
    measurement = Measurement(**json.loads(finished.stdout.splitlines()[-1]))
    print(f"  {command}: {measurement.seconds:.1f} s, {measurement.counts}", flush=True)
    return measurement


def _settle_catalog(database_url: str) -> None:
    """Leave the catalog as a run over the unchanged bucket leaves it: all photos read, statistics up to date."""
    engine = create_engine(driver_url(database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in (*TAKE_BACK_CHANGES, "VACUUM ANALYZE", "CHECKPOINT"):
            connection.execute(text(statement))
    engine.dispose()


@contextmanager
def _open_database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        folder = Path(parent) / "stack"
        try:
            start_stack(folder, WantedPorts(), None)
            url = read_environment(folder)["CATALOG_DATABASE_URL"]
            migrate(url)
            yield url
        finally:
            stop_stack(folder)


def _print_table(first: Measurement, rounds: list[Round]) -> None:
    listing = [one.listing for one in rounds]
    print(f"{'':34}{'seconds':>9}{'of listing alone':>18}{'peak MB':>9}")
    for name, measured in (
        ("listing alone", listing),
        ("discover, nothing changed", [one.nothing_changed for one in rounds]),
        ("discover, 1 % each differs", [one.some_changed for one in rounds]),
    ):
        ratios = [one.seconds / alone.seconds for one, alone in zip(measured, listing, strict=True)]
        _print_line(name, measured, f"{statistics.median(ratios):.2f}")
    _print_line("first discovery", [first], "")


def _print_line(name: str, measured: list[Measurement], ratio: str) -> None:
    seconds = statistics.median(one.seconds for one in measured)
    peak = max(one.peak_memory_bytes for one in measured) / 1e6
    print(f"{name:34}{seconds:9.1f}{ratio:>18}{peak:9.0f}")


if __name__ == "__main__":
    main()
