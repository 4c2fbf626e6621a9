import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fixtures.candidates import (
    EXACT,
    LabeledSet,
    register_candidate,
    rename_categories,
    write_reference,
)
from fixtures.shop import CATEGORIES, Shop, TinyModels
from jobs.database.model_builds import list_builds
from jobs.database.model_versions import ModelVersion
from jobs.retrain.evaluate.artifact_check import ArtifactInspection, inspect_artifact
from jobs.retrain.snapshot.snapshot_file import erase_rows
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.storage.locations import S3Uri

TOLERANCE = 1e-5
"""Maximum difference between outputs of the same weights, computed alone and in a batch."""


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    """Return a copy that tests may damage."""
    return shutil.copytree(trained, tmp_path / "checkpoint")


def register(shop: Shop, labeled: LabeledSet, folder: Path) -> ModelVersion:
    return register_candidate(shop.connections, folder, "classifier", labeled.snapshot, "run-1")


def inspect(shop: Shop, labeled: LabeledSet, version: ModelVersion, scratch: Path) -> ArtifactInspection:
    connections = shop.connections
    images = SnapshotImages(connections.store, connections.artifacts)
    with connections.engine.connect() as connection:
        (build,) = list_builds(connection, version.model_version_id)
    return inspect_artifact(connections.store, version, build, labeled.snapshot, images, EXACT, scratch / "artifact")


def overwrite(shop: Shop, version: ModelVersion, name: str, content: bytes) -> None:
    shop.connections.store.write(S3Uri.parse(version.artifact_uri) / name, content)


def test_accepts_the_trained_checkpoint(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path
) -> None:
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.served is not None
    check = found.check
    assert (check.is_checksum_right, check.has_labels, check.has_preprocessing) == (True, True, True)
    assert check.largest_difference == pytest.approx(0, abs=TOLERANCE)
    assert check.error is None


def test_a_reference_image_that_was_erased_is_left_out(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path
) -> None:
    version = register(stocked_shop, labeled, checkpoint)
    erased = labeled.snapshot.part("validation")[0]
    rest = replace(labeled, snapshot=erase_rows(labeled.snapshot, lambda row: row == erased))
    assert rest.snapshot.snapshot_id == labeled.snapshot.snapshot_id
    check = inspect(stocked_shop, rest, version, tmp_path).check
    assert check.error is None
    assert check.largest_difference == pytest.approx(0, abs=TOLERANCE)


def test_compares_vectors_of_an_encoder(
    stocked_shop: Shop, labeled: LabeledSet, tiny_models: TinyModels, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_models.encoder, tmp_path / "encoder")
    write_reference(folder, "encoder", labeled)
    shutil.copy(tiny_models.other_encoder / "model.safetensors", tmp_path / "other.safetensors")
    version = register_candidate(stocked_shop.connections, folder, "encoder", labeled.snapshot, "run-1")
    assert inspect(stocked_shop, labeled, version, tmp_path).check.largest_difference == pytest.approx(0, abs=TOLERANCE)
    shutil.copy(tiny_models.other_encoder / "model.safetensors", folder)
    version = register_candidate(stocked_shop.connections, folder, "encoder", labeled.snapshot, "run-2")
    difference = inspect(stocked_shop, labeled, version, tmp_path).check.largest_difference
    assert difference is not None
    assert difference > 0.01


@pytest.mark.parametrize("name", ["model.safetensors", "calibration.json"])
def test_modified_file_fails_the_checksum(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    version = register(stocked_shop, labeled, checkpoint)
    content = (checkpoint / name).read_bytes()
    overwrite(stocked_shop, version, name, content[:-1] + b"\x00")
    found = inspect(stocked_shop, labeled, version, tmp_path)
    assert not found.check.is_checksum_right
    assert found.served is None
    assert "do not match the registered hash" in str(found.check.error)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc/passwd", b"model.safetensors\nno-such-file"])
def test_damaged_list_of_files_is_reported(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, content: bytes
) -> None:
    version = register(stocked_shop, labeled, checkpoint)
    overwrite(stocked_shop, version, "files.txt", content)
    found = inspect(stocked_shop, labeled, version, tmp_path)
    assert not found.check.is_checksum_right
    assert found.check.error


def test_registered_but_truncated_weights_are_reported(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path
) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.check.is_checksum_right
    assert found.served is None
    assert "cannot be loaded" in str(found.check.error)


@pytest.mark.parametrize("wrong_shape", [False, True])
def test_missing_or_misshapen_weights_are_reported(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, wrong_shape: bool
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    name = next(name for name in weights if name.endswith("classifier.1.weight"))
    head = weights.pop(name)
    if wrong_shape:
        weights[name] = head[:2].clone()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.served is None
    assert found.check.largest_difference is None
    assert found.check.error


def test_permuted_categories_differ_from_the_reference(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path
) -> None:
    rename_categories(checkpoint, [*CATEGORIES[1:], CATEGORIES[0]])
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.check.largest_difference is not None
    assert found.check.largest_difference > 0.5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"], "have no names"),
        (["dress", "hat", "shirt", "gown"], "gown, shoe"),
        (["dress", "hat", "shirt", "shirt"], "shoe"),
    ],
)
def test_categories_must_match_the_snapshot(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    rename_categories(checkpoint, names)
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert not found.check.has_labels
    assert message in str(found.check.error)


@pytest.mark.parametrize(
    "change",
    [
        {"image_mean": [0.229, 0.224, 0.225], "image_std": [0.485, 0.456, 0.406]},
        {"resample": 2},
        {"size": {"shortest_edge": 40}},
    ],
)
def test_changed_preprocessing_differs_from_the_reference(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    file = checkpoint / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.check.has_preprocessing
    assert found.check.largest_difference is not None
    assert found.check.largest_difference > 10 * TOLERANCE


@pytest.mark.parametrize(
    "content", [None, b"{", b'{"kind": "encoder", "outputs": {}}', b'{"kind": "classifier", "outputs": {}}']
)
def test_missing_or_damaged_reference_is_reported(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = checkpoint / "reference_outputs.json"
    file.unlink() if content is None else file.write_bytes(content)
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.check.largest_difference is None
    assert "reference_outputs.json" in str(found.check.error)


def test_damaged_temperature_is_reported(
    stocked_shop: Shop, labeled: LabeledSet, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / "calibration.json").write_text("{}")
    found = inspect(stocked_shop, labeled, register(stocked_shop, labeled, checkpoint), tmp_path)
    assert found.served is None
    assert "calibration.json" in str(found.check.error)
