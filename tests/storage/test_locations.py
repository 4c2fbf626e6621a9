"""Parse S3 URIs, and lay out the keys of artifacts."""

import itertools

import pytest

from jobs.storage.locations import S3Uri, checkpoint_location, manifest_location, report_location, shard_location

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


@pytest.mark.parametrize(
    ("written", "bucket", "key"),
    [
        ("s3://images", "images", ""),
        ("s3://images/", "images", ""),
        ("s3://images/new/arrivals", "images", "new/arrivals"),
        ("s3://images/a key #1?.jpg", "images", "a key #1?.jpg"),
        ("s3://images//odd", "images", "/odd"),
    ],
)
def test_parse_splits_bucket_and_key(written: str, bucket: str, key: str) -> None:
    assert S3Uri.parse(written) == S3Uri(bucket, key)


@pytest.mark.parametrize("written", ["", "images", "s3:/images", "s3://", "s3:///images", "https://images/new", "S3"])
def test_parse_refuses_other_text_and_quotes_it(written: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix") as caught:
        S3Uri.parse(written)
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", ["s3://images/new", "s3://images/new/", "s3://images/"])
def test_a_parsed_uri_prints_the_same(written: str) -> None:
    assert str(S3Uri.parse(written)) == written


@pytest.mark.parametrize(("key", "folder"), [("", ""), ("new", "new/"), ("new/", "new/"), ("new//", "new/")])
def test_a_folder_ends_with_one_slash(key: str, folder: str) -> None:
    assert S3Uri("images", key).as_folder().key == folder


@pytest.mark.parametrize("key", ["", "runs", "runs/"])
def test_a_name_is_appended_after_one_slash(key: str) -> None:
    assert (S3Uri("images", key) / "7" / "report.json").key == f"{key.rstrip('/')}/7/report.json".lstrip("/")


def test_keys_are_below_the_artifacts() -> None:
    assert str(checkpoint_location(ARTIFACTS, "encoder", "abc")) == "s3://artifacts/shop/models/encoder/abc"
    assert str(manifest_location(ARTIFACTS, "7")) == "s3://artifacts/shop/runs/7/manifest"
    assert str(report_location(ARTIFACTS, "7")) == "s3://artifacts/shop/runs/7/report.json"


def test_shards_sort_by_number() -> None:
    manifest = manifest_location(ARTIFACTS, "7")
    keys = [shard_location(manifest, shard).key for shard in (0, 9, 10, 99_999)]
    assert keys[0] == "shop/runs/7/manifest/shard-00000.parquet"
    assert keys == sorted(keys)


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_a_run_id_becomes_one_safe_segment(run_id: str) -> None:
    segments = report_location(ARTIFACTS, run_id).key.split("/")
    assert (segments[:2], segments[3:]) == (["shop", "runs"], ["report.json"])
    assert segments[2] not in {"", ".", ".."}
    assert segments[2].isascii()
    assert segments[2].isprintable()


def test_two_runs_never_share_a_folder() -> None:
    for one, other in itertools.combinations(RUN_IDS, 2):
        assert report_location(ARTIFACTS, one) != report_location(ARTIFACTS, other)
