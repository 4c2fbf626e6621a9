import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from fixtures.shop import CATEGORIES, Shop, TinyModels
from jobs.database.model_versions import ModelVersion, insert_model_version
from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_checkpoint
from jobs.models.registry import fetch_checkpoint, upload_checkpoint
from jobs.settings import PROJECT_ROOT
from jobs.storage.locations import S3Uri

FETCH_AND_STALL = """
import sys
import time
from pathlib import Path
from jobs.database.model_versions import ModelVersion
from jobs.models.registry import fetch_checkpoint
from jobs.storage.object_store import ObjectStore

class StallingStore(ObjectStore):
    def download(self, location, path):
        super().download(location, path)
        print(path, flush=True)
        time.sleep(600)

version = ModelVersion(1, "encoder", sys.argv[2], "", (), 64, None, None)
fetch_checkpoint(StallingStore(sys.argv[1]), version, Path(sys.argv[3]))
"""


def register(shop: Shop, folder: Path) -> ModelVersion:
    uploaded = upload_checkpoint(shop.connections.store, shop.connections.artifacts, folder, "encoder")
    with shop.connections.engine.begin() as connection:
        return insert_model_version(connection, uploaded)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_fetching_returns_the_uploaded_files(shop: Shop, tiny_models: TinyModels, cache: Path, tmp_path: Path) -> None:
    folder = Path(copytree(tiny_models.encoder, tmp_path / "encoder"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "a config ü.json").write_text("{}")
    fetched = fetch_checkpoint(shop.connections.store, register(shop, folder), cache)
    assert read_files(fetched) == read_files(folder)
    assert [path.name for path in cache.iterdir()] == [hash_checkpoint(folder)]


def test_a_version_records_the_fields_of_its_kind(shop: Shop, tiny_models: TinyModels) -> None:
    store, artifacts = shop.connections.store, shop.connections.artifacts
    encoder = upload_checkpoint(store, artifacts, tiny_models.encoder, "encoder", metrics={"recall_at_1": 0.5})
    classifier = upload_checkpoint(store, artifacts, tiny_models.classifier, "classifier", data_snapshot="labels-1")
    assert (encoder.categories, encoder.dimensions, encoder.metrics) == (None, 64, {"recall_at_1": 0.5})
    assert (classifier.categories, classifier.dimensions, classifier.data_snapshot) == (CATEGORIES, None, "labels-1")
    assert encoder.preprocessing["geometry"]["crop_to"] == 32


def test_the_same_checkpoint_is_one_version(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    first = register(shop, tiny_models.encoder)
    before = shop.list_artifacts()
    assert register(shop, Path(copytree(tiny_models.encoder, tmp_path / "copy"))) == first
    assert shop.list_artifacts() == before
    assert register(shop, tiny_models.other_encoder) != first


def test_a_fetched_checkpoint_is_not_fetched_again(shop: Shop, tiny_models: TinyModels, cache: Path) -> None:
    version = register(shop, tiny_models.encoder)
    folder = fetch_checkpoint(shop.connections.store, version, cache)
    for path in shop.bucket_folder.with_name(f"{shop.bucket_folder.name}-artifacts").rglob("*.safetensors"):
        path.unlink()
    assert fetch_checkpoint(shop.connections.store, version, cache) == folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "files.txt"])
def test_a_changed_artifact_is_refused_and_not_cached(
    shop: Shop, tiny_models: TinyModels, cache: Path, name: str
) -> None:
    version = register(shop, tiny_models.encoder)
    location = S3Uri.parse(version.artifact_uri) / name
    content = shop.connections.store.read(location)
    shop.connections.store.write(location, content[: content.rindex(b"\n")] if name == "files.txt" else b"{}")
    with pytest.raises(PermanentError, match="do not match the registered hash"):
        fetch_checkpoint(shop.connections.store, version, cache)
    assert list(cache.iterdir()) == []

    shop.connections.store.write(location, content)
    assert read_files(fetch_checkpoint(shop.connections.store, version, cache)) == read_files(tiny_models.encoder)


def test_a_damaged_copy_is_fetched_again(shop: Shop, tiny_models: TinyModels, cache: Path) -> None:
    version = register(shop, tiny_models.encoder)
    folder = fetch_checkpoint(shop.connections.store, version, cache)
    (folder / "config.json").write_text("{}")
    (folder / "left-behind").touch()
    assert read_files(fetch_checkpoint(shop.connections.store, version, cache)) == read_files(tiny_models.encoder)


@pytest.mark.parametrize("name", ["../../outside", "/{tmp_path}/outside", "..", "sub/../../outside", ""])
def test_names_outside_the_folder_are_refused(
    shop: Shop, tiny_models: TinyModels, cache: Path, tmp_path: Path, name: str
) -> None:
    version = register(shop, tiny_models.encoder)
    location = S3Uri.parse(version.artifact_uri)
    shop.connections.store.write(location / "files.txt", f"{name.format(tmp_path=tmp_path)}\nconfig.json".encode())
    with pytest.raises(PermanentError, match="outside the artifact"):
        fetch_checkpoint(shop.connections.store, version, cache)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def stalled_fetch(shop: Shop, tiny_models: TinyModels, cache: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that fetches a checkpoint and stalls after the first file."""
    version = register(shop, tiny_models.encoder)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            FETCH_AND_STALL,
            shop.environment["CATALOG_S3_ENDPOINT_URL"],
            version.artifact_uri,
            cache,
        ],
        cwd=PROJECT_ROOT,
        env=os.environ | shop.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_fetch_leaves_no_checkpoint(
    shop: Shop, tiny_models: TinyModels, cache: Path, stalled_fetch: "subprocess.Popen[str]"
) -> None:
    assert stalled_fetch.stdout is not None
    half = Path(stalled_fetch.stdout.readline().strip())
    stalled_fetch.kill()
    stalled_fetch.wait()
    assert half.is_file()
    assert half.is_relative_to(cache)
    digest = hash_checkpoint(tiny_models.encoder)
    assert not (cache / digest).exists()

    folder = fetch_checkpoint(shop.connections.store, register(shop, tiny_models.encoder), cache)
    assert folder == cache / digest
    assert read_files(folder) == read_files(tiny_models.encoder)
