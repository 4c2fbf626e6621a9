"""Check that the artifact in the bucket still gives the outputs recorded when it was trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.errors import ConfigurationError, PermanentError
from jobs.models.classifier import read_categories
from jobs.models.device import Device
from jobs.models.encoder import load_text_encoder
from jobs.models.preprocessing import Preprocessing
from jobs.models.registry import fetch_checkpoint
from jobs.retrain.evaluate.evaluation_record import Servable
from jobs.retrain.evaluate.served_model import ServedModel, load_trained_model
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos
from jobs.storage.object_store import ObjectStore

REFERENCE_FILE = "reference_outputs.json"
REFERENCE_PHOTOS = 32


@dataclass(frozen=True)
class ReferenceOutputs:
    """Outputs by the content hash of the photo, computed in float32 from the model in memory.

    For a classifier the calibrated probability of each category, by its name; for an encoder the unit vector.
    """

    kind: ModelKind
    outputs: dict[str, dict[str, float] | list[float]]


def choose_reference_photos(rows: Sequence[SnapshotRow]) -> tuple[SnapshotRow, ...]:
    """At most 32 photos, the first by their content hashes, and therefore a random sample."""
    return tuple(sorted(rows, key=lambda row: row.content_hash)[:REFERENCE_PHOTOS])


def write_reference_outputs(folder: Path, reference: ReferenceOutputs) -> None:
    """Store the outputs with a checkpoint."""
    (folder / REFERENCE_FILE).write_bytes(TypeAdapter(ReferenceOutputs).dump_json(reference))


def read_reference_outputs(folder: Path) -> ReferenceOutputs | None:
    """The outputs that a checkpoint carries, or None where it has no such file.

    Raises:
        pydantic.ValidationError: the file has another form.
    """
    file = folder / REFERENCE_FILE
    return TypeAdapter(ReferenceOutputs).validate_json(file.read_bytes()) if file.is_file() else None


UNNAMED = "LABEL_"
"""What Transformers calls the categories of a classifier to which nobody gave names."""


@dataclass(frozen=True)
class Inspection:
    """What was found, and the folder of the artifact; None where it holds no model that can be asked."""

    servable: Servable
    folder: Path | None


def inspect_artifact(
    store: ObjectStore,
    version: ModelVersion,
    snapshot: Snapshot,
    photos: SnapshotPhotos,
    device: Device,
    scratch: Path,
) -> Inspection:
    """Read a model version back from the bucket into an empty folder and ask it what it was asked when trained.

    ``device`` must compute in float32, as the reference was. Every fault of the artifact is part of what is returned.

    Raises:
        RetryableError: the bucket is away.
        PermanentError: a photo of the reference is missing or altered.
    """
    try:
        folder = fetch_checkpoint(store, version, scratch)
    except (PermanentError, UnicodeDecodeError) as error:
        return Inspection(Servable(False, False, False, None, str(error)), None)
    faults: list[str] = []
    has_labels = version.kind == "encoder" or _has_labels(folder, snapshot.categories, faults)
    has_preprocessing = _has_preprocessing(folder, faults)
    model = _load(folder, version.kind, device, faults)
    reference = _read_reference(folder, version.kind, faults)
    difference = _largest_difference(model, reference, snapshot, photos, faults) if model and reference else None
    fault = "; ".join(faults) or None
    return Inspection(Servable(True, has_labels, has_preprocessing, difference, fault), folder if model else None)


def _has_labels(folder: Path, categories: Sequence[str], faults: list[str]) -> bool:
    found = read_categories(folder)
    if any(name.startswith(UNNAMED) for name in found):
        faults.append(f"the categories bear no names: {', '.join(found[:3])}")
    elif sorted(found) != sorted(categories):
        differing = ", ".join(sorted(set(found) ^ set(categories))[:5]) or "one is there twice"
        faults.append(f"the categories are not those of the data set: {differing}")
    else:
        return True
    return False


def _has_preprocessing(folder: Path, faults: list[str]) -> bool:
    try:
        Preprocessing.from_checkpoint(folder)
    except ConfigurationError as error:
        faults.append(str(error))
        return False
    return True


def _load(folder: Path, kind: ModelKind, device: Device, faults: list[str]) -> ServedModel | None:
    try:
        if kind == "encoder":
            load_text_encoder(folder, device)
        return load_trained_model(folder, kind, device)
    except ConfigurationError as error:
        faults.append(str(error))
        return None


def _read_reference(folder: Path, kind: ModelKind, faults: list[str]) -> ReferenceOutputs | None:
    try:
        reference = read_reference_outputs(folder)
    except ValidationError:
        faults.append(f"{REFERENCE_FILE} has another form")
        return None
    if reference is None or reference.kind != kind or not reference.outputs:
        faults.append(f"the checkpoint carries no {REFERENCE_FILE} of a {kind}")
        return None
    return reference


def _largest_difference(
    model: ServedModel, reference: ReferenceOutputs, snapshot: Snapshot, photos: SnapshotPhotos, faults: list[str]
) -> float | None:
    """The largest difference of any number of any photo; NaN where one of them is none."""
    rows = [row for row in snapshot.rows if row.content_hash in reference.outputs]
    if len(rows) < len(reference.outputs):
        faults.append(f"{REFERENCE_FILE} names photos that are not in the data set")
        return None
    differences = []
    for row, output in zip(rows, model.predict(photos.load_pixels(rows, model.geometry)), strict=True):
        expected = reference.outputs[row.content_hash]
        if isinstance(expected, dict):
            answered = dict(zip(model.categories, output.tolist(), strict=True))
            # A category that one of them lacks has the probability 0 there.
            names = sorted({*expected, *answered})
            differences.append([expected.get(name, 0.0) - answered.get(name, 0.0) for name in names])
        elif len(expected) == len(output):
            differences.append((np.array(expected) - output).tolist())
        else:
            faults.append(f"vectors have {len(output)} elements and not {len(expected)} as in {REFERENCE_FILE}")
            return None
    return float(np.abs(np.concatenate(differences)).max())
