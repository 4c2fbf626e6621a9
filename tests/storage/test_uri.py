import pytest

from jobs.storage.uri import S3Uri


@pytest.mark.parametrize(
    ("written", "bucket", "key"),
    [
        ("s3://photos", "photos", ""),
        ("s3://photos/", "photos", ""),
        ("s3://photos/new/arrivals", "photos", "new/arrivals"),
        ("s3://photos/a key #1?.jpg", "photos", "a key #1?.jpg"),
        ("s3://photos//odd", "photos", "/odd"),
    ],
)
def test_bucket_and_key_are_told_apart(written: str, bucket: str, key: str) -> None:
    assert S3Uri.parse(written) == S3Uri(bucket, key)


@pytest.mark.parametrize("written", ["", "photos", "s3:/photos", "s3://", "s3:///photos", "https://photos/new", "S3"])
def test_anything_else_is_refused_and_repeated(written: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix") as caught:
        S3Uri.parse(written)
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", ["s3://photos/new", "s3://photos/new/", "s3://photos/"])
def test_what_is_written_reads_as_the_same(written: str) -> None:
    assert str(S3Uri.parse(written)) == written


@pytest.mark.parametrize(("key", "folder"), [("", ""), ("new", "new/"), ("new/", "new/"), ("new//", "new/")])
def test_a_folder_ends_in_one_slash_and_a_bucket_in_none(key: str, folder: str) -> None:
    assert S3Uri("photos", key).as_folder().key == folder


@pytest.mark.parametrize("key", ["", "runs", "runs/"])
def test_names_are_appended_after_one_slash(key: str) -> None:
    assert (S3Uri("photos", key) / "7" / "report.json").key == f"{key.rstrip('/')}/7/report.json".lstrip("/")
