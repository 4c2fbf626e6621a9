"""What the demo runs on: the rendered sample catalog, or a folder of the user's own photos."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.sample_catalog import SampleCatalog
from jobs.connections import Connections
from jobs.errors import ConfigurationError
from jobs.local.stack_files import write_private_file
from jobs.storage.uri import S3Uri

_RECORD_FILE = "demo.json"


@dataclass(frozen=True)
class DemoPhotos:
    """Files for the bucket, below ``folder``, and the labels to learn from.

    ``labels`` are a format and a source of ``import-labels``, or None for photos without labels.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: tuple[str, Path] | None
    is_sample: bool


@dataclass(frozen=True)
class DemoRecord:
    """What a demo left in the local stack: its own ``photos`` or None for the sample, and an encoder.

    An encoder with random weights that nobody trained does not read texts.
    """

    photos: str | None
    reads_texts: bool = True


def describe_sample(catalog: SampleCatalog) -> DemoPhotos:
    """Return the sample catalog: its unlabelled part is the shop, its labelled part trains the models."""
    folder = catalog.unlabeled_folder
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
    return DemoPhotos(folder, files, ("csv", catalog.labels_file), is_sample=True)


def find_own_photos(folder: Path, suffixes: Sequence[str]) -> DemoPhotos:
    """Find the photos of a folder; two or more subfolders with photos are labels.

    Raises:
        ConfigurationError: the folder does not exist, or holds no photos.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ConfigurationError(f"PHOTOS={folder} is not a folder")
    files = tuple(
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes and not _is_hidden(path.relative_to(folder)) and path.is_file()
    )
    if not files:
        raise ConfigurationError(f"PHOTOS={folder} holds no photos; their names end in {', '.join(suffixes)}")
    subfolders = {path.relative_to(folder).parts[0] for path in files if path.parent != folder}
    return DemoPhotos(folder, files, ("folders", folder) if len(subfolders) > 1 else None, is_sample=False)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def reserve_stack(stack_folder: Path, own_photos: Path | None) -> None:
    """Note which photos the local stack holds, so that two catalogs are never mixed.

    Raises:
        ConfigurationError: it holds others.
    """
    wanted = DemoRecord(str(own_photos.expanduser().resolve()) if own_photos else None)
    held = read_demo_record(stack_folder) or wanted
    if held.photos != wanted.photos:
        same = f"make demo PHOTOS={held.photos}" if held.photos else "make demo"
        raise ConfigurationError(
            f"the local stack holds {held.photos or 'the sample catalog'}: run `make reset` to delete it, "
            f"or `{same}` again"
        )
    write_demo_record(stack_folder, held)


def read_demo_record(stack_folder: Path) -> DemoRecord | None:
    """Return what the last demo noted, or None before the first."""
    record = stack_folder / _RECORD_FILE
    return DemoRecord(**json.loads(record.read_text(encoding="utf-8"))) if record.exists() else None


def write_demo_record(stack_folder: Path, record: DemoRecord) -> None:
    """Note what this demo runs on."""
    write_private_file(stack_folder / _RECORD_FILE, json.dumps(asdict(record)))


def upload_photos(connections: Connections, photos: DemoPhotos) -> int:
    """Bring the files into the bucket; one that is there with the same bytes stays. Returns how many were new."""
    store, source = connections.store, connections.source
    present = {item.key: item.etag for page in store.list_pages(source) for item in page}
    uploaded = 0
    for path in photos.files:
        key = source.key + path.relative_to(photos.folder).as_posix()
        # The local endpoint's etags are MD5 sums.
        if present.get(key) != hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest():
            store.upload(path, S3Uri(source.bucket, key))
            uploaded += 1
    return uploaded
