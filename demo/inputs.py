"""Choose the demo's inputs: images, their labels, and the checkpoints that training starts from."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.sample_catalog import SampleCatalog
from jobs.connections import Connections
from jobs.database.model_versions import MODEL_KINDS, ModelKind
from jobs.errors import ConfigurationError
from jobs.local.stack_files import write_private_file
from jobs.models.checkpoint import resolve_base
from jobs.progress import show_progress
from jobs.scratch import open_scratch
from jobs.settings import Settings
from jobs.storage.locations import S3Uri

_RECORD_FILE = "demo.json"


@dataclass(frozen=True)
class DemoImages:
    """The images in ``folder`` to upload, and the labels to train on.

    ``labels`` contains the arguments of ``import-labels``, format and source, or is None if there are no labels.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: tuple[str, Path] | None
    is_sample: bool


@dataclass(frozen=True)
class DemoRecord:
    """The catalog in the local stack. ``images`` is the folder of the user's own images, or None for the sample.

    ``reads_texts`` is false if the encoder has random weights and was never trained.
    """

    images: str | None
    reads_texts: bool = True


@dataclass(frozen=True)
class DemoBase:
    """The folder of a checkpoint. With random weights and no training, its encoder can compare only pixels."""

    folder: Path
    has_random_weights: bool
    reason: str


def describe_sample(catalog: SampleCatalog) -> DemoImages:
    """Return the sample catalog. Its unlabeled part is the shop's bucket; models are trained on its labeled part."""
    folder = catalog.unlabeled_folder
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
    return DemoImages(folder, files, ("csv", catalog.labels_file), is_sample=True)


def find_own_images(folder: Path, suffixes: Sequence[str]) -> DemoImages:
    """Find the images in a folder. If two or more subfolders contain images, their names are the labels.

    Raises:
        ConfigurationError: the folder does not exist, or contains no images.
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
        raise ConfigurationError(f"PHOTOS={folder} contains no images, which are files named {', '.join(suffixes)}")
    subfolders = {path.relative_to(folder).parts[0] for path in files if path.parent != folder}
    return DemoImages(folder, files, ("folders", folder) if len(subfolders) > 1 else None, is_sample=False)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def reserve_stack(stack_folder: Path, own_images: Path | None) -> None:
    """Record which images the local stack contains. Refuse to mix two catalogs.

    Raises:
        ConfigurationError: the stack contains other images.
    """
    wanted = DemoRecord(str(own_images.expanduser().resolve()) if own_images else None)
    current = read_demo_record(stack_folder) or wanted
    if current.images != wanted.images:
        same = f"make demo PHOTOS={current.images}" if current.images else "make demo"
        raise ConfigurationError(
            f"the local stack contains {current.images or 'the sample catalog'}: run `make reset` to delete it, "
            f"or `{same}` to continue with it"
        )
    write_demo_record(stack_folder, current)


def read_demo_record(stack_folder: Path) -> DemoRecord | None:
    """Return the record of the last demo, or None before the first."""
    record = stack_folder / _RECORD_FILE
    return DemoRecord(**json.loads(record.read_text(encoding="utf-8"))) if record.exists() else None


def write_demo_record(stack_folder: Path, record: DemoRecord) -> None:
    """Store the record of this demo."""
    write_private_file(stack_folder / _RECORD_FILE, json.dumps(asdict(record)))


def upload_images(connections: Connections, images: DemoImages) -> int:
    """Upload the files that are missing from the bucket or have different bytes there. Return how many."""
    store, source = connections.store, connections.source
    present = {item.key: item.etag for page in store.list_pages(source) for item in page}
    uploaded = 0
    with show_progress("upload") as progress:
        for path in progress.track("uploading images", images.files, len(images.files)):
            key = source.key + path.relative_to(images.folder).as_posix()
            # The local endpoint's ETags are MD5 sums.
            if present.get(key) != hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest():
                store.upload(path, S3Uri(source.bucket, key))
                uploaded += 1
    return uploaded


def choose_bases(images: DemoImages, settings: Settings, folder: Path) -> dict[ModelKind, DemoBase]:
    """Choose a base for each kind: the configured one for the user's images, a small one for the sample.

    The small one has random weights and is stored in ``folder``. It also replaces a configured base that fails to load.
    """
    blanks = write_random_weights(images, folder)
    if images.is_sample:
        reason = "a small network with random weights, which is enough for rendered garments and needs no download"
        return {kind: DemoBase(blanks[kind], True, reason) for kind in MODEL_KINDS}
    return {kind: _choose_base(kind, settings, blanks[kind]) for kind in MODEL_KINDS}


def write_random_weights(images: DemoImages, folder: Path) -> dict[ModelKind, Path]:
    """Write a checkpoint of each kind unless they exist: a run may be reading them when a second demo starts."""
    if not folder.exists():
        # Imported here, because torch takes seconds and a second demo does not need it.
        from demo.blank_checkpoints import write_blank_bases

        with open_scratch(folder.parent) as scratch:
            write_blank_bases(scratch / "bases", *_read_vocabulary(images))
            (scratch / "bases").rename(folder)
    return {kind: (folder / f"blank-{kind}").resolve() for kind in MODEL_KINDS}


def _choose_base(kind: ModelKind, settings: Settings, blank: Path) -> DemoBase:
    configured = settings.training.classifier_base if kind == "classifier" else settings.training.encoder_base
    setting = f"CATALOG_{kind.upper()}_BASE"
    try:
        return DemoBase(
            resolve_base(configured, setting, settings.locations.model_cache), False, f"{configured}, from {setting}"
        )
    except ConfigurationError as error:
        return DemoBase(blank, True, f"random weights, because {error}")


def _read_vocabulary(images: DemoImages) -> tuple[Sequence[str], Sequence[str]]:
    """Return the categories, and texts to train a tokenizer on."""
    if images.labels is None:
        return ["image", "other"], ["image"]
    name, source = images.labels
    if name == "csv":
        with source.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return sorted({row["label"] for row in rows}), [row["text"] for row in rows]
    categories = sorted({path.relative_to(source).parts[0] for path in images.files if path.parent != source})
    return categories, categories
