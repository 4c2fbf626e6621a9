from pathlib import Path
from uuid import uuid4

import pytest

from fixtures.s3_server import S3Server
from jobs.errors import PermanentError
from jobs.storage.credentials import AwsCredentials
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

SHARED = "[profile shop]\nregion = eu-west-3\naws_access_key_id = kept\naws_secret_access_key = hush\n"


@pytest.fixture
def shared_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile in the place of the user's own, and no key in the environment."""
    (tmp_path / "config").write_text(SHARED)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def read_key(credentials: AwsCredentials) -> tuple[str | None, ...] | None:
    """The key that boto3 would sign with, its token and its region."""
    session = credentials.open_session()
    found = session.get_credentials()
    return (*found.get_frozen_credentials()[:3], session.region_name) if found else None


def test_a_key_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.setenv(name, "of the environment")
    assert read_key(AwsCredentials("id", "secret", region="eu-west-1")) == ("id", "secret", None, "eu-west-1")
    assert read_key(AwsCredentials("id", "secret", "token"))[:3] == ("id", "secret", "token")  # type: ignore[index]


@pytest.mark.usefixtures("shared_configuration")
def test_a_profile_is_read_from_the_shared_configuration() -> None:
    assert read_key(AwsCredentials(profile="shop")) == ("kept", "hush", None, "eu-west-3")
    assert read_key(AwsCredentials(profile="shop", region="us-east-1")) == ("kept", "hush", None, "us-east-1")


@pytest.mark.usefixtures("shared_configuration")
def test_without_credentials_boto3_searches_its_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key(AwsCredentials()) is None
    monkeypatch.setenv("AWS_PROFILE", "shop")
    assert read_key(AwsCredentials()) == ("kept", "hush", None, "eu-west-3")


@pytest.mark.usefixtures("shared_configuration")
def test_a_profile_keeps_the_roles_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a cluster that gives each container a role."""
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/tagger")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere")
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        read_key(AwsCredentials(profile="shop"))


def test_the_error_names_a_missing_profile() -> None:
    with pytest.raises(PermanentError, match=r"nobody.*AWS_PROFILE"):
        ObjectStore(None, AwsCredentials(profile="nobody"))


def test_both_clients_sign_with_the_given_key(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key = AwsCredentials.from_variables(s3_server.environment)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.setenv(name, "x" * 20)
    store = ObjectStore(s3_server.url, key)
    image = S3Uri(f"signed-{uuid4().hex[:12]}", "1.jpg")
    store._client.create_bucket(Bucket=image.bucket)
    store.write(image, b"image")
    [[listed]] = store.list_pages(image)
    assert store.read(image) == b"image"
    assert store._quick_reader.read(image, listed.etag, 5) == b"image"
