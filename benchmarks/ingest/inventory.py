"""Measure the time and memory of discovery from an S3 inventory.

    python -m benchmarks.ingest.inventory
    python -m benchmarks.ingest.inventory --keys 100000

The inventories are generated and stored in the S3 endpoint of the local stack, as S3 writes them. Everything else is
real: boto3, pyarrow, the Postgres of the local stack, the schema and the code of the stage. Each discovery runs in its
own process.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from benchmarks.ingest.discover import DISCOVER, Measurement, run_once, settle_catalog
from benchmarks.ingest.listing_server import GeneratedBucket
from benchmarks.results import Row, publish
from benchmarks.stack import open_stack
from fixtures.inventories import Entry, Format, write_inventory
from jobs.settings import make_settings
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

FILE_KEYS = 250_000


def main() -> None:
    """Discover all keys, then the same inventory in both formats, then one in which 3 % of the images differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000_000)
    keys = parser.parse_args().keys
    now = datetime.now(UTC)
    with open_stack() as stack:
        settings = make_settings(stack.environment)
        store = ObjectStore(stack.s3_url, settings.credentials)
        source = S3Uri.parse(settings.locations.source_uri)
        inventories = S3Uri.parse(settings.locations.artifacts_uri) / "inventories"

        def discover(bucket: GeneratedBucket, file_format: Format, hours_old: int) -> Measurement:
            folder = inventories / f"{file_format}-{hours_old}"
            created_at = now - timedelta(hours=hours_old)
            write_inventory(store, folder, source.bucket, _split(bucket), file_format, created_at)
            environment = stack.environment | {
                "CATALOG_SOURCE_URI": f"s3://{source.bucket}/images/",
                "CATALOG_INVENTORY_URI": str(folder),
            }
            return run_once(DISCOVER, environment)

        same, changed = (GeneratedBucket(keys, is_changed=is_changed) for is_changed in (False, True))
        first = discover(same, "Parquet", hours_old=4)
        settle_catalog(stack.database_url)
        measured = {
            "Parquet, nothing changed": discover(same, "Parquet", hours_old=3),
            "CSV, nothing changed": discover(same, "CSV", hours_old=2),
            "Parquet; 1 % deleted, 1 % changed, 1 % new": discover(changed, "Parquet", hours_old=1),
            "Parquet, first discovery": first,
        }
    publish(
        "Discovery from an S3 inventory",
        f"Generated inventories of {keys:,} keys in files of {FILE_KEYS:,}, read from the S3 endpoint of the local "
        "stack and compared with a catalog of as many images, once each, in a process of its own.",
        [_make_row(case, one, keys) for case, one in measured.items()],
        targets="300 MB",
        packages=["boto3", "pyarrow", "sqlalchemy", "psycopg2-binary"],
    )


def _split(bucket: GeneratedBucket) -> Iterator[list[Entry]]:
    for start in range(0, bucket.images, FILE_KEYS):
        images = range(start, min(start + FILE_KEYS, bucket.images))
        yield [Entry(*bucket.describe(image)) for image in images]


def _make_row(case: str, measured: Measurement, keys: int) -> Row:
    return {
        "case": case,
        "seconds": round(measured.seconds, 1),
        "keys per second": round(keys / measured.seconds),
        "peak memory, MB": round(measured.peak_memory_bytes / 1e6),
    }


if __name__ == "__main__":
    main()
