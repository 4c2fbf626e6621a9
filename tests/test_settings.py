import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from jobs.errors import PermanentError
from jobs.settings import LOCATIONS, Settings, load_environment, load_settings

NEEDED = {
    "CATALOG_DATABASE_URL": "postgresql://shop:hush@db/catalog",
    "CATALOG_SOURCE_URI": "s3://photos/",
    "CATALOG_ARTIFACTS_URI": "s3://artifacts/catalog",
}


@pytest.fixture(autouse=True)
def bare_environment() -> Iterator[None]:
    """No setting of the machine reaches a test, and none of a test's reaches the next."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CATALOG_", "AWS_"))}
    with patch.dict(os.environ, inherited, clear=True):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with both files."""
    (tmp_path / ".env").write_text("CATALOG_BATCH_SIZE=1\nCATALOG_CHUNK_SIZE=11\nCATALOG_SHARD_SIZE=\n")
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "stack.env").write_text(
        "CATALOG_BATCH_SIZE=2\nCATALOG_SHARD_SIZE=22\nCATALOG_DATABASE_URL=postgresql://localhost/catalog\n"
        "AWS_ACCESS_KEY_ID=stack\n"
    )
    return tmp_path


def read_settings(**values: str) -> Settings:
    with patch.dict(os.environ, NEEDED | {f"CATALOG_{name.upper()}": value for name, value in values.items()}):
        return load_settings()


def test_the_environment_wins_over_the_file_and_the_file_over_the_local_stack(folder: Path) -> None:
    os.environ["CATALOG_CHUNK_SIZE"] = "111"
    load_environment(folder)
    assert os.environ["CATALOG_CHUNK_SIZE"] == "111"
    assert os.environ["CATALOG_BATCH_SIZE"] == "1"
    assert os.environ["CATALOG_DATABASE_URL"] == "postgresql://localhost/catalog"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "stack"


def test_an_empty_line_in_the_file_sets_nothing(folder: Path) -> None:
    load_environment(folder)
    assert os.environ["CATALOG_SHARD_SIZE"] == "22"


@pytest.mark.parametrize("name", LOCATIONS)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_one_location_keeps_the_local_stack_out(folder: Path, name: str, where: str) -> None:
    if where == "environment":
        os.environ[name] = "s3://own/"
    else:
        (folder / ".env").write_text(f"{name}=s3://own/")
    load_environment(folder)
    assert {name for name in LOCATIONS if name in os.environ} == {name}
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    assert "CATALOG_SHARD_SIZE" not in os.environ


def test_empty_locations_in_the_file_let_the_local_stack_in(folder: Path) -> None:
    (folder / ".env").write_text("".join(f"{name}=\n" for name in LOCATIONS))
    load_environment(folder)
    assert os.environ["CATALOG_DATABASE_URL"] == "postgresql://localhost/catalog"


def test_only_the_keys_of_the_local_stack_open_its_bucket(folder: Path) -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="own", AWS_PROFILE="own", AWS_SESSION_TOKEN="own")
    load_environment(folder)
    assert {name: value for name, value in os.environ.items() if name.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID": "stack"
    }


def test_own_locations_keep_their_own_keys(folder: Path) -> None:
    own = {"AWS_ACCESS_KEY_ID": "own", "AWS_PROFILE": "own", "CATALOG_SOURCE_URI": "s3://own/"}
    os.environ.update(own)
    load_environment(folder)
    assert {name: os.environ[name] for name in own} == own


def test_a_project_without_files_is_fine(tmp_path: Path) -> None:
    before = dict(os.environ)
    load_environment(tmp_path)
    assert dict(os.environ) == before


def test_what_is_missing_is_named_by_its_variable() -> None:
    os.environ["CATALOG_S3_ENDPOINT_URL"] = "http://127.0.0.1:1"
    os.environ.update(dict.fromkeys(NEEDED, ""))
    with pytest.raises(PermanentError) as caught:
        load_settings()
    assert all(f"{name} is not set" in str(caught.value) for name in NEEDED)
    assert ".env.example" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_value_counts_as_none() -> None:
    assert read_settings(s3_endpoint_url="", batch_size="").s3_endpoint_url is None
    assert read_settings(batch_size="").batch_size == Settings.model_fields["batch_size"].default


def test_an_argument_wins_over_the_environment() -> None:
    with patch.dict(os.environ, NEEDED):
        assert load_settings("s3://elsewhere/new").source_uri == "s3://elsewhere/new"
        assert load_settings(None).source_uri == "s3://photos/"
        with pytest.raises(PermanentError, match="CATALOG_SOURCE_URI: must look like s3://"):
            load_settings("elsewhere")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("database_url", "mysql://shop:hush@db/catalog", "must start with postgresql://"),
        ("database_url", "shop:hush@db", "must start with postgresql://"),
        ("source_uri", "photos", "must look like s3://bucket/prefix"),
        ("artifacts_uri", "https://bucket/", "must look like s3://bucket/prefix"),
        ("image_suffixes", ".jpg,.png", "must be a JSON list of texts"),
        ("image_suffixes", '".jpg"', "valid tuple"),
        ("exclude_patterns", "[1]", "valid string"),
        ("product_id_pattern", "(", "is no regular expression"),
        ("product_id_pattern", r"(\d+)", r"with a group (?P<product_id>...)"),
        ("vanished_share_limit", "1.1", "less than or equal to 1"),
        ("failed_share_limit", "-0.1", "greater than or equal to 0"),
        ("shard_size", "0", "greater than or equal to 1"),
        ("chunk_size", "0", "greater than or equal to 1"),
        ("batch_size", "many", "valid integer"),
        ("read_threads", "0", "greater than or equal to 1"),
        ("decode_processes", "0", "greater than or equal to 1"),
        ("max_object_bytes", "0", "greater than or equal to 1"),
        ("max_pixels", "0", "greater than or equal to 1"),
        ("min_side_pixels", "0", "greater than or equal to 1"),
        ("max_attempts", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(name: str, value: str, words: str) -> None:
    with pytest.raises(PermanentError) as caught:
        read_settings(**{name: value})
    assert f"CATALOG_{name.upper()}: " in str(caught.value)
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_faults_are_named_at_once() -> None:
    with pytest.raises(PermanentError, match=r"CATALOG_IMAGE_SUFFIXES: .*; CATALOG_BATCH_SIZE: "):
        read_settings(image_suffixes="jpg", batch_size="0")


def test_a_chunk_must_fit_in_a_shard() -> None:
    assert read_settings(chunk_size="8", shard_size="8").chunk_size == 8
    with pytest.raises(PermanentError, match="CATALOG_CHUNK_SIZE must not exceed CATALOG_SHARD_SIZE"):
        read_settings(chunk_size="9", shard_size="8")


def test_values_are_read_into_their_types() -> None:
    settings = read_settings(
        database_url="postgres://db/catalog",
        image_suffixes='[".jpg", ".heic"]',
        exclude_patterns='["drafts/*"]',
        failed_share_limit="0.5",
        model_cache="/var/cache/models",
    )
    assert settings.database_url == "postgresql://db/catalog"
    assert settings.image_suffixes == (".jpg", ".heic")
    assert settings.exclude_patterns == ("drafts/*",)
    assert settings.failed_share_limit == 0.5
    assert settings.model_cache == Path("/var/cache/models")
    assert settings.decode_processes >= 1


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read_settings().batch_size = 1
