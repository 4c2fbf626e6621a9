"""Store checkpoints and builds in the bucket under the hash of their files, and verify them when fetching them."""

import shutil
from pathlib import Path

from jobs.code_version import read_code_version, read_library_versions
from jobs.database.model_versions import ModelKind, ModelVersion, NewModelVersion
from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_checkpoint, hash_weights, list_files
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri, build_location, checkpoint_location
from jobs.storage.object_store import ObjectStore

FILE_LIST = "files.txt"


def upload_checkpoint(
    store: ObjectStore,
    artifacts: S3Uri,
    folder: Path,
    kind: ModelKind,
    data_snapshot: str | None = None,
    metrics: dict[str, float] | None = None,
) -> NewModelVersion:
    """Upload a checkpoint and return the record to register."""
    # Imported here because they import torch, which fetching does not need.
    from jobs.models.classifier import read_categories
    from jobs.models.encoder import read_dimensions
    from jobs.models.preprocessing import Preprocessing

    location = checkpoint_location(artifacts, kind, hash_checkpoint(folder))
    _upload(store, folder, location)
    return NewModelVersion(
        kind=kind,
        artifact_uri=str(location),
        weights_sha256=hash_weights(folder),
        preprocessing=Preprocessing.from_checkpoint(folder).as_record(),
        categories=read_categories(folder) if kind == "classifier" else None,
        dimensions=read_dimensions(folder) if kind == "encoder" else None,
        data_snapshot=data_snapshot,
        code_version=read_code_version(),
        library_versions=read_library_versions(),
        metrics=metrics or {},
    )


def upload_build(store: ObjectStore, artifacts: S3Uri, folder: Path) -> S3Uri:
    """Upload the files of a build and return their location."""
    location = build_location(artifacts, hash_checkpoint(folder))
    _upload(store, folder, location)
    return location


def _upload(store: ObjectStore, folder: Path, location: S3Uri) -> None:
    """Upload files, and their list last, so a killed job leaves no partial artifact."""
    names = [path.relative_to(folder).as_posix() for path in list_files(folder)]
    for name in names:
        store.upload(folder / name, location / name)
    store.write(location / FILE_LIST, "\n".join(names).encode())


def find_missing_files(store: ObjectStore, artifact_uri: str) -> list[str]:
    """Return the names of the files of a checkpoint or build that are not in the bucket. Do not read the others."""
    location = S3Uri.parse(artifact_uri)
    listed = {item.key for page in store.list_pages(location.as_folder()) for item in page}
    content = store.read_if_present(location / FILE_LIST)
    names = [FILE_LIST] if content is None else content.decode().splitlines()
    return [name for name in names if (location / name).key not in listed]


def fetch_checkpoint(store: ObjectStore, version: ModelVersion, cache: Path) -> Path:
    """Return the local folder of a registered checkpoint, as `fetch_artifact` does."""
    name = f"{version.kind} {version.model_version_id}"
    return fetch_artifact(store, version.artifact_uri, name, cache)


def fetch_artifact(
    store: ObjectStore,
    artifact_uri: str,
    name: str,
    cache: Path,
    remedy: str = "Restore them or roll back to another version",
) -> Path:
    """Return the local folder of a checkpoint or build. Verify it on every call, and download it if needed.

    Raises:
        PermanentError: the files in the bucket do not match the registered hash. The message contains ``name`` and
            ``remedy``.
    """
    location = S3Uri.parse(artifact_uri)
    digest = location.key.rsplit("/", 1)[-1]
    folder = cache / digest
    if not folder.is_dir() or hash_checkpoint(folder) != digest:
        shutil.rmtree(folder, ignore_errors=True)
        _download(store, location, name, folder, remedy)
    return folder


def _download(store: ObjectStore, location: S3Uri, artifact: str, folder: Path, remedy: str) -> None:
    """Download to a temporary folder and then rename it, so a killed job leaves no partial artifact."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_scratch(folder.parent) as scratch:
        staged = scratch / "artifact"
        staged.mkdir()
        for name in store.read(location / FILE_LIST).decode().splitlines():
            path = staged / name
            if staged.resolve() not in path.resolve().parents:
                raise PermanentError(f"{location / FILE_LIST} lists {name!r}, which is outside the artifact")
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(location / name, path)
        if hash_checkpoint(staged) != folder.name:
            raise PermanentError(f"{artifact}: the files at {location} do not match the registered hash. {remedy}")
        try:
            staged.rename(folder)
        except OSError:
            # Fine if another job was faster: it has downloaded the same files.
            if not folder.is_dir():
                raise
