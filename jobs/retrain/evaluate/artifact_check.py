"""Check that the artifact in the bucket still produces the outputs recorded when the model was trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jobs.database.model_builds import RegisteredBuild
from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.errors import PermanentError
from jobs.models.classifier import read_categories
from jobs.models.device import Device
from jobs.models.encoder import load_text_encoder
from jobs.models.preprocessing import Preprocessing
from jobs.models.registry import fetch_artifact, fetch_checkpoint
from jobs.retrain.evaluate.evaluation_record import ArtifactCheck
from jobs.retrain.evaluate.served_model import ServedModel, ServedVersion, load_trained_model
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.storage.object_store import ObjectStore

REFERENCE_FILE = "reference_outputs.json"
REFERENCE_IMAGES = 32
DEFAULT_CATEGORY_PREFIX = "LABEL_"
"""Transformers uses the names LABEL_0, LABEL_1, ... if a classifier does not name its categories."""


@dataclass(frozen=True)
class ReferenceOutputs:
    """Outputs by content hash, computed in float32 from the model in memory.

    For a classifier, the calibrated probability of each category by name; for an encoder, the unit vector.
    """

    kind: ModelKind
    outputs: dict[str, dict[str, float] | list[float]]


def choose_reference_images(rows: Sequence[SnapshotRow]) -> tuple[SnapshotRow, ...]:
    """Choose the first 32 images by content hash, or fewer. This is equivalent to a random sample."""
    return tuple(sorted(rows, key=lambda row: row.content_hash)[:REFERENCE_IMAGES])


def write_reference_outputs(folder: Path, reference: ReferenceOutputs) -> None:
    """Store the reference outputs in a checkpoint."""
    (folder / REFERENCE_FILE).write_bytes(TypeAdapter(ReferenceOutputs).dump_json(reference))


def read_reference_outputs(folder: Path) -> ReferenceOutputs | None:
    """Read the reference outputs of a checkpoint. Return None if the file does not exist.

    Raises:
        pydantic.ValidationError: the file cannot be parsed.
    """
    file = folder / REFERENCE_FILE
    return TypeAdapter(ReferenceOutputs).validate_json(file.read_bytes()) if file.is_file() else None


@dataclass(frozen=True)
class ArtifactInspection:
    """Result of an inspection. ``served`` holds the downloaded artifact, or is None if no model can be loaded."""

    check: ArtifactCheck
    served: ServedVersion | None


def inspect_artifact(
    store: ObjectStore,
    version: ModelVersion,
    build: RegisteredBuild,
    snapshot: Snapshot,
    images: SnapshotImages,
    device: Device,
    scratch: Path,
) -> ArtifactInspection:
    """Download a version and its build into an empty folder, and compare its outputs with the reference outputs.

    ``device`` must compute in float32, like the reference. Problems of the artifact are returned, not raised.

    Raises:
        RetryableError: the bucket is unavailable.
        PermanentError: an image of the reference is missing or was modified.
    """
    try:
        folder = fetch_checkpoint(store, version, scratch)
        assert build.artifact_uri is not None
        build_folder = fetch_artifact(store, build.artifact_uri, f"the build {build.describe()}", scratch)
    except (PermanentError, UnicodeDecodeError) as error:
        return ArtifactInspection(ArtifactCheck(False, False, False, None, str(error)), None)
    errors: list[str] = []
    has_labels = version.kind == "encoder" or _check_categories(folder, snapshot.categories, errors)
    has_preprocessing = _check_preprocessing(folder, errors)
    model = _load(folder, version.kind, device, errors)
    reference = _read_reference(folder, version.kind, errors)
    difference = _measure_difference(model, reference, snapshot, images, errors) if model and reference else None
    check = ArtifactCheck(True, has_labels, has_preprocessing, difference, "; ".join(errors) or None)
    return ArtifactInspection(check, ServedVersion(folder, build_folder) if model else None)


def _check_categories(folder: Path, categories: Sequence[str], errors: list[str]) -> bool:
    found = read_categories(folder)
    if any(name.startswith(DEFAULT_CATEGORY_PREFIX) for name in found):
        errors.append(f"the categories have no names: {', '.join(found[:3])}")
    elif sorted(found) != sorted(categories):
        differing = ", ".join(sorted(set(found) ^ set(categories))[:5]) or "one is listed twice"
        errors.append(f"the categories differ from those of the snapshot: {differing}")
    else:
        return True
    return False


def _check_preprocessing(folder: Path, errors: list[str]) -> bool:
    try:
        Preprocessing.from_checkpoint(folder)
    except PermanentError as error:
        errors.append(str(error))
        return False
    return True


def _load(folder: Path, kind: ModelKind, device: Device, errors: list[str]) -> ServedModel | None:
    try:
        if kind == "encoder":
            load_text_encoder(folder, device)
        return load_trained_model(folder, kind, device)
    except PermanentError as error:
        errors.append(str(error))
        return None


def _read_reference(folder: Path, kind: ModelKind, errors: list[str]) -> ReferenceOutputs | None:
    try:
        reference = read_reference_outputs(folder)
    except ValidationError:
        errors.append(f"{REFERENCE_FILE} cannot be parsed")
        return None
    if reference is None or reference.kind != kind or not reference.outputs:
        errors.append(f"the checkpoint contains no {REFERENCE_FILE} for a {kind}")
        return None
    return reference


def _measure_difference(
    model: ServedModel, reference: ReferenceOutputs, snapshot: Snapshot, images: SnapshotImages, errors: list[str]
) -> float | None:
    """Return the largest absolute difference of any output, or NaN if an output is NaN."""
    rows = [row for row in snapshot.rows if row.content_hash in reference.outputs]
    if not rows or len(rows) + len(snapshot.erased) < len(reference.outputs):
        errors.append(f"{REFERENCE_FILE} contains images that are not in the snapshot")
        return None
    differences = []
    outputs = model.predict_in_batches(rows, lambda batch: images.load_pixels(batch, model.geometry))
    for row, output in zip(rows, outputs, strict=True):
        expected = reference.outputs[row.content_hash]
        if isinstance(expected, dict):
            predicted = dict(zip(model.categories, output.tolist(), strict=True))
            # A category that only one side has counts as probability 0 on the other.
            names = sorted({*expected, *predicted})
            differences.append([expected.get(name, 0.0) - predicted.get(name, 0.0) for name in names])
        elif len(expected) == len(output):
            differences.append((np.array(expected) - output).tolist())
        else:
            errors.append(f"vectors have {len(output)} elements, but {len(expected)} in {REFERENCE_FILE}")
            return None
    return float(np.abs(np.concatenate(differences)).max())
