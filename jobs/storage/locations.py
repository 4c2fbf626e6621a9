"""Define the layout of the keys below ``CATALOG_ARTIFACTS_URI``, and build locations in the bucket.

models/<kind>/<digest>/...               a checkpoint, named by the hash of its files
runs/<run>/manifest/shard-00000.parquet  the images of a run, one file per shard
runs/<run>/report.json                   the report of a run
examples/<first two>/<content hash>      a labeled image, named by the sha256 of its bytes
imports/<import>/skipped.jsonl           the rows that an import skipped, each with its line and the reason
snapshots/<snapshot>.parquet             a labeled data set, named by the hash of its rows
evaluations/<run>/<kind>/<time>/...      predictions, flips, label audit and page of a candidate
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import quote


@dataclass(frozen=True)
class S3Uri:
    """A bucket and a key or prefix in it. ``key`` never starts with a slash and may be empty."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``s3://bucket[/key]``.

        Raises:
            ValueError: another scheme, or no bucket.
        """
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not bucket:
            raise ValueError(f"must look like s3://bucket/prefix, not {text!r}")
        return cls(bucket, key)

    def as_folder(self) -> "S3Uri":
        """Return the location with a trailing slash, so ``images`` does not match ``images-old``."""
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/") if self.key else self

    def is_within(self, folder: "S3Uri") -> bool:
        """Return whether this location is ``folder`` or below it."""
        return self.bucket == folder.bucket and self.as_folder().key.startswith(folder.as_folder().key)

    def __truediv__(self, name: str) -> "S3Uri":
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def checkpoint_location(artifacts: S3Uri, kind: str, digest: str) -> S3Uri:
    """Return the folder of the checkpoint with this digest."""
    return artifacts / "models" / kind / digest


def build_location(artifacts: S3Uri, digest: str) -> S3Uri:
    """Return the folder of the build with this digest."""
    return artifacts / "builds" / digest


def manifest_location(artifacts: S3Uri, run_id: str) -> S3Uri:
    """Return the folder of a run's shards."""
    return artifacts / "runs" / _segment(run_id) / "manifest"


def shard_location(manifest: S3Uri, shard: int) -> S3Uri:
    """Return the Parquet file of a shard."""
    return manifest / f"shard-{shard:05d}.parquet"


def report_location(artifacts: S3Uri, run_id: str) -> S3Uri:
    """Return the report of a run."""
    return artifacts / "runs" / _segment(run_id) / "report.json"


def example_location(artifacts: S3Uri, content_hash: str) -> S3Uri:
    """Return the file of a labeled image; the hash is hexadecimal."""
    return artifacts / "examples" / content_hash[:2] / content_hash


def skipped_rows_location(artifacts: S3Uri, import_id: str) -> S3Uri:
    """Return the list of rows that an import skipped."""
    return artifacts / "imports" / _segment(import_id) / "skipped.jsonl"


def snapshot_location(artifacts: S3Uri, snapshot_id: str) -> S3Uri:
    """Return the Parquet file of a snapshot."""
    return artifacts / "snapshots" / f"{snapshot_id}.parquet"


def evaluation_location(artifacts: S3Uri, run_id: str, kind: str, evaluated_at: datetime) -> S3Uri:
    """Return the folder of one evaluation of a run's candidate."""
    return artifacts / "evaluations" / _segment(run_id) / kind / f"{evaluated_at:%Y%m%dT%H%M%S.%fZ}"


def _segment(run_id: str) -> str:
    """Encode a run id as one path segment. Airflow's run ids contain colons and plus signs."""
    return quote(run_id, safe="").replace(".", "%2E") if set(run_id) <= {"."} else quote(run_id, safe="")
