import itertools

import pytest

from jobs.storage.layout import checkpoint_location, manifest_location, report_location, shard_location
from jobs.storage.uri import S3Uri

ARTIFACTS = S3Uri("artifacts", "shop/")
RUN_IDS = [
    "ingest-20260101T020000",
    "catalog_ingest/scheduled__2026-01-01T02:00:00+00:00",
    "catalog_ingest",
    "..",
    ".",
    "a/../b",
    "a%2Fb",
    "a b\nc",
    "läuft",
]


def test_everything_lies_below_the_artifacts() -> None:
    assert str(checkpoint_location(ARTIFACTS, "encoder", "abc")) == "s3://artifacts/shop/models/encoder/abc"
    assert str(manifest_location(ARTIFACTS, "7")) == "s3://artifacts/shop/runs/7/manifest"
    assert str(report_location(ARTIFACTS, "7")) == "s3://artifacts/shop/runs/7/report.json"


def test_shards_sort_by_number() -> None:
    manifest = manifest_location(ARTIFACTS, "7")
    keys = [shard_location(manifest, shard).key for shard in (0, 9, 10, 99_999)]
    assert keys[0] == "shop/runs/7/manifest/shard-00000.parquet"
    assert keys == sorted(keys)


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_a_run_is_one_harmless_segment(run_id: str) -> None:
    segments = report_location(ARTIFACTS, run_id).key.split("/")
    assert (segments[:2], segments[3:]) == (["shop", "runs"], ["report.json"])
    assert segments[2] not in {"", ".", ".."}
    assert segments[2].isascii()
    assert segments[2].isprintable()


def test_two_runs_never_share_a_folder() -> None:
    for one, other in itertools.combinations(RUN_IDS, 2):
        assert report_location(ARTIFACTS, one) != report_location(ARTIFACTS, other)
