"""Prepare the inputs of all optimization steps: the trained model, its snapshot, and the comparison with float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jobs.connections import Connections
from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.errors import RefusedError
from jobs.models.device import Device, choose_device
from jobs.models.encoder import load_text_encoder
from jobs.models.image_model import ModelBuild
from jobs.models.registry import fetch_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.evaluate.fidelity import compare_classifiers, compare_encoders
from jobs.retrain.evaluate.scores import ClassifierPredictions
from jobs.retrain.evaluate.served_model import ServedModel, load_trained_model, map_batches
from jobs.retrain.optimize.quantize import CALIBRATION_IMAGES
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, load_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.settings import ComputeSettings

MAX_TEST_IMAGES = 10_000
"""Test images on which builds are compared. Each build decodes them again, and searches the neighbors of each."""


@dataclass(frozen=True)
class OptimizationContext:
    """A checkpoint and the snapshot that it was trained on, if any.

    ``build`` describes the checkpoint in float32, which runs on the device ``exact``.
    """

    kind: ModelKind
    checkpoint: Path
    build: ModelBuild
    images: SnapshotImages
    snapshot: Snapshot | None
    exact: Device
    compute: ComputeSettings
    progress: Progress = SILENT

    @property
    def test(self) -> tuple[SnapshotRow, ...]:
        """Return at most 10,000 test images of the snapshot.

        Rows are ordered by content hash, so the first ones are a random sample.
        """
        return self.snapshot.part("test")[:MAX_TEST_IMAGES] if self.snapshot else ()

    def load_pixels(self, rows: Sequence[SnapshotRow]) -> torch.Tensor:
        """Return uint8 pixels [n, 3, side, side]."""
        return self.images.load_pixels(rows, self.build.geometry)

    def load_calibration(self) -> np.ndarray:
        """Return uint8 pixels [n, side, side, 3] of a random sample of at most 300 train images."""
        assert self.snapshot is not None
        pixels = self.load_pixels(self.snapshot.part("train")[:CALIBRATION_IMAGES])
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def open_context(connections: Connections, version: ModelVersion, progress: Progress = SILENT) -> OptimizationContext:
    """Fetch a version and its snapshot.

    Raises:
        RefusedError: the snapshot has fewer than two test images.
        RetryableError: the bucket is unavailable.
    """
    settings = connections.settings
    folder = fetch_checkpoint(connections.store, version, settings.locations.model_cache)
    snapshot_id = version.data_snapshot
    context = OptimizationContext(
        kind=version.kind,
        checkpoint=folder,
        build=describe_checkpoint(folder, version.kind),
        images=SnapshotImages(connections.store, connections.artifacts, progress),
        snapshot=load_snapshot(connections.store, connections.artifacts, snapshot_id) if snapshot_id else None,
        exact=choose_device(settings.compute.device, "fp32"),
        compute=settings.compute,
        progress=progress,
    )
    if snapshot_id and len(context.test) < 2:
        raise RefusedError(
            f"snapshot {snapshot_id[:12]} has {len(context.test)} test images, but comparing precisions takes at least "
            "2: label more products and take a new snapshot"
        )
    return context


def prepare_comparison(context: OptimizationContext) -> Callable[[ServedModel], Fidelity]:
    """Run the checkpoint in float32 on the test images once. Return a function that compares a build with it."""
    exact_model = load_trained_model(context.checkpoint, context.kind, context.exact)

    def predict(model: ServedModel) -> np.ndarray:
        stage = f"scoring test images by {model.model.description}"
        return model.predict_in_batches(context.test, context.load_pixels, context.progress, stage)

    exact = predict(exact_model)
    if context.kind == "classifier":
        expected = ClassifierPredictions(exact, exact_model.categories)
        labels = [row.category for row in context.test]
        return lambda model: compare_classifiers(
            expected, ClassifierPredictions(predict(model), model.categories), labels
        )
    with_text = [number for number, row in enumerate(context.test) if row.full_text]
    texts = [context.test[number].full_text for number in with_text]
    tower = load_text_encoder(context.checkpoint, context.exact)
    vectors = map_batches(tower.embed, texts, context.exact) if texts else np.empty((0, exact.shape[1]))
    return lambda model: compare_encoders(exact, predict(model), vectors, texts, with_text)
