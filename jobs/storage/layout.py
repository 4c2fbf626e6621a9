"""Every key that we write, below ``CATALOG_ARTIFACTS_URI``.

models/<kind>/<digest>/...              a checkpoint, named by the hash of its files
runs/<run>/manifest/shard-00000.parquet the images of a run, a file for each shard
runs/<run>/report.json                  what became of them
"""

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


def _segment(run_id: str) -> str:
    """A run id as one path segment: Airflow's own hold colons and plus signs."""
    return quote(run_id, safe="").replace(".", "%2E") if set(run_id) <= {"."} else quote(run_id, safe="")
