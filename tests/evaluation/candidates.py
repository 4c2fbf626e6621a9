"""Candidates for evaluations: labelled photos in a shop's artifacts, and classifiers that learned them in seconds."""

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from jobs.connections import Connections
from jobs.database.model_versions import ModelKind, ModelVersion, insert_model_version
from jobs.database.snapshots import insert_snapshot
from jobs.database.trainings import Training, insert_training
from jobs.datasets.snapshot_file import Snapshot, SnapshotRow, Split, encode_snapshot, make_snapshot
from jobs.errors import PermanentError
from jobs.evaluation.evaluation_record import Serving
from jobs.evaluation.serving_probe import probe_serving
from jobs.labelling.perceptual_hash import perceptual_hash
from jobs.models.classifier import load_classifier, write_temperature
from jobs.models.device import choose_device
from jobs.models.encoder import load_image_encoder
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.geometry import Geometry
from jobs.models.production import PRODUCTION_FILE, write_production
from jobs.models.registry import upload_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.progress import SILENT, Progress
from jobs.settings import Settings
from jobs.storage.layout import example_location, snapshot_location
from jobs.tagging.decode import DecodedImage, DecodeLimits, decode_image
from jobs.training.linear_head import find_head, fit_head
from jobs.training.reference_outputs import ReferenceOutputs, choose_reference_photos, write_reference_outputs
from tests.shop import CATEGORIES, IMAGE_SIDE
from tests.small_classifier import write_small_classifier

COLOURS = dict(zip(CATEGORIES, [(220, 40, 40), (40, 200, 40), (40, 40, 220), (220, 220, 40)], strict=True))
EXACT = choose_device("cpu", "fp32")
EXACT_ENGINE = EngineSettings("cpu", "fp32")


@dataclass(frozen=True)
class LabelledSet:
    """A snapshot, and the bytes of its photos by their content hash."""

    snapshot: Snapshot
    contents: dict[str, bytes]


def make_labelled_set(train: int = 12, validation: int = 4, test: int = 8) -> LabelledSet:
    """So many photos of each category, which differ in their pattern, and between categories in their colour."""
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    parts = [split for split, count in counts.items() for _ in range(count)]
    contents, rows = {}, []
    for category in CATEGORIES:
        for number, split in enumerate(parts):
            content = make_coloured_photo(category, number)
            row = label_photo(content, category, f"{category} {number}", split)
            rows.append(row)
            contents[row.content_hash] = content
    return LabelledSet(make_snapshot(rows), contents)


def label_photo(content: bytes, category: str, group: str, split: Split) -> SnapshotRow:
    """A row of a snapshot, as the snapshot's own stage writes it."""
    return SnapshotRow(
        content_hash=hashlib.sha256(content).hexdigest(),
        perceptual_hash=perceptual_hash(_decode(content)).hex(),
        category=category,
        full_text=f"a {category} of pattern {group}",
        group_name=group,
        split=split,
    )


def make_coloured_photo(category: str, number: int) -> bytes:
    """A JPEG of blocks in shades of the category's colour; every number has blocks of its own."""
    random = np.random.default_rng([number, *category.encode()])
    shades = random.uniform(0.4, 1, (8, 6, 1)) * np.array(COLOURS[category])
    buffer = io.BytesIO()
    Image.fromarray(shades.astype(np.uint8)).resize((48, 64), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


def write_classifier(folder: Path, labelled: LabelledSet, labels: Sequence[str] | None = None) -> None:
    """Train a tiny classifier on the train part, or on other ``labels`` for it, and save it as training does."""
    rows = labelled.snapshot.part("train")
    write_small_classifier(folder, labelled.snapshot.categories, hidden_sizes=(16, 64))
    classifier = load_classifier(folder, EXACT)
    pixels = load_part(labelled, "train", classifier.preprocessing.geometry)
    with torch.no_grad():
        inputs = classifier.preprocessing.normalise(pixels, torch.float32)
        features = classifier.model.resnet(inputs).pooler_output.flatten(1)
    numbers = {category: number for number, category in enumerate(classifier.categories)}
    answers = torch.tensor([numbers[label] for label in labels or [row.category for row in rows]])
    fit_head(find_head(classifier.model)[1], features, answers)
    classifier.model.save_pretrained(folder)
    write_temperature(folder, 1.0)
    write_reference(folder, "classifier", labelled)


def load_part(labelled: LabelledSet, split: Split, geometry: Geometry) -> torch.Tensor:
    """The pixels of one part of the photos: uint8 [n, 3, side, side]."""
    return torch.stack([geometry.apply(_decode_row(labelled, row)) for row in labelled.snapshot.part(split)])


def write_reference(folder: Path, kind: ModelKind, labelled: LabelledSet) -> None:
    """Store what the model of a folder answers on reference photos."""
    model = load_classifier(folder, EXACT) if kind == "classifier" else load_image_encoder(folder, EXACT)
    outputs: dict[str, dict[str, float] | list[float]] = {}
    for row in choose_reference_photos(labelled.snapshot.part("validation")):
        pixels = model.preprocessing.geometry.apply(_decode_row(labelled, row))
        numbers = model.predict(pixels[None])[0].tolist()
        categories = load_classifier(folder, EXACT).categories if kind == "classifier" else None
        outputs[row.content_hash] = dict(zip(categories, numbers, strict=True)) if categories else numbers
    write_reference_outputs(folder, ReferenceOutputs(kind, outputs))


def store_labelled_set(connections: Connections, labelled: LabelledSet) -> None:
    """Put photos and snapshot where imports and snapshots put them."""
    for content_hash, content in labelled.contents.items():
        connections.store.write(example_location(connections.artifacts, content_hash), content)
    location = snapshot_location(connections.artifacts, labelled.snapshot.snapshot_id)
    connections.store.write(location, encode_snapshot(labelled.snapshot))
    with connections.engine.begin() as connection:
        insert_snapshot(connection, labelled.snapshot.snapshot_id, str(location), {})


def register_candidate(
    connections: Connections, folder: Path, kind: ModelKind, snapshot: Snapshot, run_id: str
) -> ModelVersion:
    """Store and register a checkpoint as what a run has trained, served as a training leaves it unless it says so."""
    # A checkpoint that cannot be described is one that a test has spoilt.
    with suppress(PermanentError):
        if not (folder / PRODUCTION_FILE).exists():
            write_production(folder, describe_checkpoint(folder, kind))
    uploaded = upload_checkpoint(connections.store, connections.artifacts, folder, kind, snapshot.snapshot_id)
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        insert_training(connection, Training(run_id, kind, snapshot.snapshot_id, version.model_version_id, {}, {}))
    return version


def serve_here(
    artifact: Path,
    kind: ModelKind,
    photos: Sequence[bytes],
    _settings: Settings,
    _scratch: Path,
    _progress: Progress = SILENT,
) -> Serving:
    """Measure as `measure_serving` does, without the seconds that a process of its own takes to start."""
    return probe_serving(load_image_model(artifact, kind, EXACT_ENGINE), photos, round_seconds=0.01)


def rename_categories(folder: Path, categories: Sequence[str]) -> None:
    """Give the outputs of a saved classifier other names."""
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model.config.id2label = dict(enumerate(categories))
    model.config.label2id = {category: number for number, category in enumerate(categories)}
    model.config.save_pretrained(folder)


def swap_normalisation(folder: Path) -> None:
    """Have a saved checkpoint subtract the deviations and divide by the means."""
    file = folder / "preprocessor_config.json"
    record = json.loads(file.read_text())
    record |= {"image_mean": record["image_std"], "image_std": record["image_mean"]}
    file.write_text(json.dumps(record))


def _decode_row(labelled: LabelledSet, row: SnapshotRow) -> np.ndarray:
    return _decode(labelled.contents[row.content_hash])


def _decode(content: bytes) -> np.ndarray:
    limits = DecodeLimits(max_pixels=1_000_000, min_side_pixels=1, target_side=2 * IMAGE_SIDE)
    decoded = decode_image(content, limits)
    assert isinstance(decoded, DecodedImage)
    return decoded.pixels
