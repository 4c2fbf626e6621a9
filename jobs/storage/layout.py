"""Every key that we write, below ``CATALOG_ARTIFACTS_URI``.

models/<kind>/<digest>/...              a checkpoint, named by the hash of its files
runs/<run>/manifest/shard-00000.parquet the images of a run, a file for each shard
runs/<run>/report.json                  what became of them
examples/<first two>/<content hash>     a labelled photo, under the sha256 of its bytes
imports/<import>/skipped.jsonl          the rows of an import that were skipped, each with its line and the reason
snapshots/<snapshot>.parquet            a labelled data set, named by the hash of its rows
evaluations/<run>/<kind>/<time>/...     predictions, flips, label audit and page of a candidate
"""

from datetime import datetime
from urllib.parse import quote

from jobs.storage.uri import S3Uri


def checkpoint_location(artifacts: S3Uri, kind: str, digest: str) -> S3Uri:
    """Where a checkpoint with this digest is kept."""
    return artifacts / "models" / kind / digest


def manifest_location(artifacts: S3Uri, run_id: str) -> S3Uri:
    """The folder of a run's shards."""
    return artifacts / "runs" / _segment(run_id) / "manifest"


def shard_location(manifest: S3Uri, shard: int) -> S3Uri:
    """One shard's Parquet file."""
    return manifest / f"shard-{shard:05d}.parquet"


def report_location(artifacts: S3Uri, run_id: str) -> S3Uri:
    """The run's report."""
    return artifacts / "runs" / _segment(run_id) / "report.json"


def example_location(artifacts: S3Uri, content_hash: str) -> S3Uri:
    """Where a labelled photo is kept; the hash is in hexadecimal."""
    return artifacts / "examples" / content_hash[:2] / content_hash


def skipped_rows_location(artifacts: S3Uri, import_id: str) -> S3Uri:
    """The report of the rows that an import skipped."""
    return artifacts / "imports" / _segment(import_id) / "skipped.jsonl"


def snapshot_location(artifacts: S3Uri, snapshot_id: str) -> S3Uri:
    """A snapshot's Parquet file."""
    return artifacts / "snapshots" / f"{snapshot_id}.parquet"


def evaluation_location(artifacts: S3Uri, run_id: str, kind: str, evaluated_at: datetime) -> S3Uri:
    """The folder of what belongs to one evaluation of a run's candidate."""
    return artifacts / "evaluations" / _segment(run_id) / kind / f"{evaluated_at:%Y%m%dT%H%M%S.%fZ}"


def _segment(run_id: str) -> str:
    """A run id as one path segment: Airflow's own hold colons and plus signs."""
    return quote(run_id, safe="").replace(".", "%2E") if set(run_id) <= {"."} else quote(run_id, safe="")
