import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from fixtures.shop import Shop
from jobs.cli import app
from jobs.errors import PermanentError
from jobs.settings import (
    HOME,
    LOCAL_STACK_ENVIRONMENT,
    LOCAL_STACK_FOLDER,
    LOCATIONS,
    PROJECT_ROOT,
    ComputeSettings,
    Settings,
    find_ignored_variables,
    load_airflow_settings,
    load_settings,
    make_settings,
    read_own_variables,
    read_variables,
)
from jobs.storage.credentials import AwsCredentials

NEEDED = {
    "CATALOG_DATABASE_URL": "postgresql://shop:hush@db/catalog",
    "CATALOG_SOURCE_URI": "s3://images/",
    "CATALOG_ARTIFACTS_URI": "s3://artifacts/catalog",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with both files."""
    (tmp_path / ".env").write_text("CATALOG_BATCH_SIZE=1\nCATALOG_MAX_PIXELS=11\nCATALOG_SHARD_SIZE=\n")
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "stack.env").write_text(
        "CATALOG_BATCH_SIZE=2\nCATALOG_SHARD_SIZE=22\nCATALOG_DATABASE_URL=postgresql://localhost/catalog\n"
        "AWS_ACCESS_KEY_ID=stack\nAWS_SECRET_ACCESS_KEY=secret\n"
    )
    return tmp_path


def read_settings(**values: str) -> Settings:
    return make_settings(NEEDED | {f"CATALOG_{name.upper()}": value for name, value in values.items()})


def read_credentials(folder: Path) -> AwsCredentials:
    return AwsCredentials.from_variables(read_variables(folder))


def test_the_suite_does_not_see_the_files_of_the_developer() -> None:
    assert HOME != PROJECT_ROOT
    assert not (HOME / ".env").exists()
    assert not (LOCAL_STACK_FOLDER / LOCAL_STACK_ENVIRONMENT).exists()
    assert LOCAL_STACK_FOLDER.parent == HOME


def test_the_environment_wins_over_the_file_and_the_file_over_the_local_stack(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_MAX_PIXELS", "111")
    variables = read_variables(folder)
    assert variables["CATALOG_MAX_PIXELS"] == "111"
    assert variables["CATALOG_BATCH_SIZE"] == "1"
    assert variables["CATALOG_DATABASE_URL"] == "postgresql://localhost/catalog"
    assert variables["AWS_ACCESS_KEY_ID"] == "stack"


def test_an_empty_line_in_the_file_sets_nothing(folder: Path) -> None:
    assert read_variables(folder)["CATALOG_SHARD_SIZE"] == "22"


def test_an_empty_variable_of_the_environment_brings_the_default_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_BATCH_SIZE", "")
    assert (
        make_settings(NEEDED | read_variables(folder)).compute.batch_size
        == ComputeSettings.model_fields["batch_size"].default
    )


@pytest.mark.parametrize("name", LOCATIONS)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_one_location_keeps_the_local_stack_out(
    folder: Path, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv(name, "s3://own/")
    else:
        (folder / ".env").write_text(f"{name}=s3://own/")
    variables = read_variables(folder)
    assert {name for name in LOCATIONS if name in variables} == {name}
    assert "AWS_ACCESS_KEY_ID" not in variables
    assert "CATALOG_SHARD_SIZE" not in variables


def test_empty_locations_in_the_file_let_the_local_stack_in(folder: Path) -> None:
    (folder / ".env").write_text("".join(f"{name}=\n" for name in LOCATIONS))
    assert read_variables(folder)["CATALOG_DATABASE_URL"] == "postgresql://localhost/catalog"


@pytest.mark.parametrize("where", ["environment", "file"])
def test_only_the_key_of_the_local_stack_opens_its_bucket(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own", "AWS_PROFILE": "own", "AWS_SESSION_TOKEN": "own"}
    if where == "environment":
        for name, value in own.items():
            monkeypatch.setenv(name, value)
    else:
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in own.items()))
    assert read_credentials(folder) == AwsCredentials("stack", "secret")


def test_own_locations_keep_their_own_key(folder: Path) -> None:
    (folder / ".env").write_text(
        "CATALOG_SOURCE_URI=s3://own/\nAWS_ACCESS_KEY_ID=own\nAWS_SECRET_ACCESS_KEY=hush\nAWS_SESSION_TOKEN=hush\n"
        "AWS_DEFAULT_REGION=eu-west-3\nAWS_PROFILE=shop\n"
    )
    credentials = read_credentials(folder)
    assert credentials == AwsCredentials("own", "hush", "hush", "eu-west-3", "shop")
    assert "hush" not in repr(credentials)
    assert "own" not in repr(make_settings(NEEDED | {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "hush"}))


def test_a_key_does_not_mix_with_the_profile_and_token_of_a_weaker_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("AWS_PROFILE=shop\nAWS_SESSION_TOKEN=old\nAWS_DEFAULT_REGION=eu-west-3\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    variables = read_own_variables(folder)
    assert AwsCredentials.from_variables(variables) == AwsCredentials("mine", "hush", region="eu-west-3")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_is_refused(name: str) -> None:
    other = ({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - {name}).pop()
    with pytest.raises(PermanentError, match=f"^{other} is not set"):
        make_settings(NEEDED | {name: "x"})


def test_a_project_without_files_is_fine(tmp_path: Path) -> None:
    assert read_variables(tmp_path) == dict(os.environ)


def test_variables_of_libraries_in_the_file_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / ".env").open("a") as file:
        file.write("HF_TOKEN=hush\nHTTPS_PROXY=http://proxy\nHF_HOME=\nPOSTGRES_PASSWORD=hush\nAWS_PROFILE=shop\n")
    assert find_ignored_variables(folder) == ["HF_TOKEN", "HTTPS_PROXY"]
    monkeypatch.setenv("HF_TOKEN", "hush")
    assert find_ignored_variables(folder) == ["HTTPS_PROXY"]


def test_what_is_missing_is_named_by_its_variable() -> None:
    with pytest.raises(PermanentError) as caught:
        make_settings({"CATALOG_S3_ENDPOINT_URL": "http://127.0.0.1:1", **dict.fromkeys(NEEDED, "")})
    assert all(f"{name} is not set" in str(caught.value) for name in NEEDED)
    assert ".env.example" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_value_counts_as_none() -> None:
    assert read_settings(s3_endpoint_url="", batch_size="").locations.s3_endpoint_url is None
    assert read_settings(batch_size="").compute.batch_size == ComputeSettings.model_fields["batch_size"].default


def test_an_argument_wins_over_the_environment() -> None:
    with patch.dict(os.environ, NEEDED):
        assert load_settings("s3://images/new").locations.source_uri == "s3://images/new"
        assert load_settings(None).locations.source_uri == "s3://images/"
        with pytest.raises(PermanentError, match="CATALOG_SOURCE_URI: must look like s3://"):
            load_settings("elsewhere")


@pytest.mark.parametrize(
    ("source", "is_allowed"),
    [
        ("s3://images/new", True),
        ("s3://images/new/2026/", True),
        ("s3://shop/b", True),
        ("s3://images/newer", False),
        ("s3://images/", False),
        ("s3://images/new/../old", True),  # A key like any other: S3 has no folders.
        ("s3://elsewhere/new", False),
        ("s3://shop/", False),
    ],
)
def test_a_source_is_one_of_those_that_the_settings_name(source: str, is_allowed: bool) -> None:
    named = NEEDED | {
        "CATALOG_SOURCE_URI": "s3://images/new",
        "CATALOG_OTHER_SOURCES": '["s3://shop/a/", "s3://shop/b"]',
    }
    with patch.dict(os.environ, named):
        if is_allowed:
            assert load_settings(source).locations.source_uri == source
        else:
            with pytest.raises(PermanentError, match="CATALOG_OTHER_SOURCES"):
                load_settings(source)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("database_url", "mysql://shop:hush@db/catalog", "must start with postgresql://"),
        ("database_url", "shop:hush@db", "must start with postgresql://"),
        ("source_uri", "images", "must look like s3://bucket/prefix"),
        ("artifacts_uri", "https://bucket/", "must look like s3://bucket/prefix"),
        ("other_sources", '["images"]', "must look like s3://bucket/prefix"),
        ("exclude_patterns", "*.jpg,*.png", "must be a JSON list"),
        ("exclude_patterns", '"*.jpg"', "valid tuple"),
        ("exclude_patterns", "[1]", "valid string"),
        ("product_id_pattern", "(", "is not a regular expression"),
        ("product_id_pattern", r"(\d+)", r"with a group (?P<product_id>...)"),
        ("vanished_share_limit", "1.1", "less than or equal to 1"),
        ("drift_limit", "0", "greater than 0"),
        ("test_share", "0.6", "less than or equal to 0.5"),
        ("failed_share_limit", "-0.1", "greater than or equal to 0"),
        ("shard_size", "0", "greater than or equal to 1"),
        ("batch_size", "many", "valid integer"),
        ("decode_processes", "0", "greater than or equal to 1"),
        ("max_object_bytes", "0", "greater than or equal to 1"),
        ("max_pixels", "0", "greater than or equal to 1"),
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
    with pytest.raises(PermanentError, match=r"CATALOG_EXCLUDE_PATTERNS: .*; CATALOG_BATCH_SIZE: "):
        read_settings(exclude_patterns="jpg", batch_size="0")


@pytest.mark.parametrize(("shard", "chunk"), [("1", 1), ("24", 8), ("25", 9), ("768", 256), ("8192", 256)])
def test_a_shard_has_three_chunks_or_more_of_at_most_256_images(shard: str, chunk: int) -> None:
    assert read_settings(shard_size=shard).compute.chunk_size == chunk


@pytest.mark.parametrize(("processes", "threads"), [("1", 8), ("2", 8), ("3", 12), ("16", 64), ("40", 64)])
def test_four_threads_read_for_each_decoding_process(processes: str, threads: int) -> None:
    assert read_settings(decode_processes=processes).compute.read_threads == threads


@pytest.mark.parametrize("name", ["chunk_size", "read_threads", "max_attempts", "drift_min_images"])
def test_no_variable_sets_a_fixed_or_derived_value(name: str) -> None:
    assert read_settings(**{name: "3"}) == read_settings()


def test_a_wrong_value_hides_what_is_derived_from_it() -> None:
    with pytest.raises(PermanentError, match=r"^CATALOG_SHARD_SIZE: [^;]+ \(see .env.example; [^;]+$"):
        read_settings(shard_size="0")


def test_values_are_read_into_their_types() -> None:
    settings = read_settings(
        database_url="postgres://db/catalog",
        exclude_patterns='["drafts/*", "*.heic"]',
        failed_share_limit="0.5",
        model_cache="/var/cache/models",
    )
    assert settings.locations.database_url == "postgresql://db/catalog"
    assert settings.images.exclude_patterns == ("drafts/*", "*.heic")
    assert settings.runs.failed_share_limit == 0.5
    assert settings.locations.model_cache == Path("/var/cache/models")
    assert settings.compute.decode_processes >= 1


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read_settings().compute.batch_size = 1


def test_a_command_warns_of_variables_of_libraries_in_the_file(env_file: Path) -> None:
    env_file.write_text("HF_TOKEN=hush\n")
    command = [sys.executable, "-m", "jobs", "stack", "status"]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert answer.stderr.splitlines()[0].endswith("WARNING HF_TOKEN in .env has no effect: export it instead")


@pytest.mark.parametrize("where", [".env", ".local/stack.env"])
def test_a_job_takes_everything_from_a_file_and_leaves_the_environment_alone(
    tagging_shop: Shop, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HOME / where
    if where == ".local/stack.env":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    tagging_shop.put_images(2)
    before = dict(os.environ)
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}={value}\n" for name, value in tagging_shop.environment.items()))
    try:
        answer = CliRunner().invoke(app, ["ingest", "--plan"])
    finally:
        file.unlink()
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["entries_by_reason"] == {"new": 2}
    assert dict(os.environ) == before


@pytest.mark.parametrize("schedule", ["0 25 * * *", "nightly", "0 2 * *"])
def test_an_invalid_schedule_is_one_line(schedule: str) -> None:
    with pytest.raises(PermanentError, match=r"^CATALOG_RETRAIN_SCHEDULE: must be a cron expression, such as .* none"):
        read_settings(retrain_schedule=schedule)


@pytest.mark.parametrize("schedule", ["none", "30 1 * * 1-5", "@daily"])
def test_a_schedule_is_a_cron_expression_or_none(schedule: str) -> None:
    assert read_settings(ingest_schedule=schedule).airflow.ingest_schedule == schedule


@pytest.mark.parametrize("urls", ['["slack:hush"]', '["fatal:json://hush"]', "json://hush", '["json://hush secret"]'])
def test_an_invalid_notification_url_is_one_line_without_its_secrets(urls: str) -> None:
    with pytest.raises(PermanentError, match=r"^CATALOG_NOTIFY_URLS: must be a JSON list") as caught:
        read_settings(notify_urls=urls)
    assert "hush" not in str(caught.value)


def test_airflow_reads_its_settings_without_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_NOTIFY_URLS", '["error:mailtos://shop:hush@example.com"]')
    settings = load_airflow_settings()
    assert settings.notify_urls == ("error:mailtos://shop:hush@example.com",)
    assert "hush" not in repr(settings)
    monkeypatch.setenv("CATALOG_INGEST_SCHEDULE", "nightly")
    with pytest.raises(PermanentError, match=r"^CATALOG_INGEST_SCHEDULE: "):
        load_airflow_settings()
