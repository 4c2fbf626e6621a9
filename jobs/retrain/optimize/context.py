"""The trained model, and the photos on which its faster copies are made and compared with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jobs.connections import Connections
from jobs.database.model_versions import ModelKind, ModelVersion
from jobs.errors import PermanentError
from jobs.models.device import Device, choose_device
from jobs.models.encoder import load_text_encoder
from jobs.models.image_model import ModelBuild
from jobs.models.registry import fetch_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import Fidelity
from jobs.retrain.evaluate.fidelity import compare_classifiers, compare_encoders
from jobs.retrain.evaluate.scores import ClassifierAnswers
from jobs.retrain.evaluate.served_model import ServedModel, load_trained_model, map_batches
from jobs.retrain.optimize.quantize import CALIBRATION_PHOTOS
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, load_snapshot
from jobs.retrain.snapshot.snapshot_photos import SnapshotPhotos


@dataclass(frozen=True)
class OptimizationContext:
    """A checkpoint in a folder, the snapshot that it was trained on, and the device that computes it in float32."""

    kind: ModelKind
    checkpoint: Path
    photos: SnapshotPhotos
    snapshot: Snapshot
    test: tuple[SnapshotRow, ...]
    production: ModelBuild
    exact: Device
    progress: Progress = SILENT

    def load_calibration(self) -> np.ndarray:
        """Photos that the model learned from, the first by their hashes and therefore a random sample.

        Uint8 pixels [n, side, side, 3], n at most 300.
        """
        pixels = self.load_pixels(self.snapshot.part("train")[:CALIBRATION_PHOTOS])
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def load_pixels(self, rows: tuple[SnapshotRow, ...]) -> torch.Tensor:
        """Uint8 [n, 3, side, side]."""
        return self.photos.load_pixels(rows, self.production.geometry)


def open_context(
    connections: Connections, kind: ModelKind, trained: ModelVersion, snapshot_id: str, progress: Progress = SILENT
) -> OptimizationContext:
    """Fetch what is needed to build and compare copies of a trained version.

    Raises:
        PermanentError: the snapshot has no two test images.
        RetryableError: the bucket is away.
    """
    settings = connections.settings
    folder = fetch_checkpoint(connections.store, trained, settings.locations.model_cache)
    snapshot = load_snapshot(connections.store, connections.artifacts, snapshot_id)
    test = snapshot.part("test")
    if len(test) < 2:
        raise PermanentError(f"snapshot {snapshot_id[:12]} has {len(test)} test images, too few to compare precisions")
    return OptimizationContext(
        kind=kind,
        checkpoint=folder,
        photos=SnapshotPhotos(connections.store, connections.artifacts, settings.locations.model_cache, progress),
        snapshot=snapshot,
        test=test,
        production=describe_checkpoint(folder, kind),
        exact=choose_device(settings.compute.device, "fp32"),
        progress=progress,
    )


def prepare_comparison(context: OptimizationContext) -> Callable[[ServedModel], Fidelity]:
    """Ask the checkpoint in float32 for all test photos, once; what is returned compares another way with it."""
    exact_model = load_trained_model(context.checkpoint, context.kind, context.exact)
    pixels = context.load_pixels(context.test)

    def score(model: ServedModel) -> np.ndarray:
        return model.predict(pixels, context.progress, f"scoring test photos by {model.model.description}")

    exact = score(exact_model)
    if context.kind == "classifier":
        answers = ClassifierAnswers(exact, exact_model.categories)
        labels = [row.category for row in context.test]
        return lambda model: compare_classifiers(answers, ClassifierAnswers(score(model), model.categories), labels)
    with_text = [number for number, row in enumerate(context.test) if row.full_text]
    texts = [context.test[number].full_text for number in with_text]
    tower = load_text_encoder(context.checkpoint, context.exact)
    vectors = map_batches(tower.embed, texts, context.exact) if texts else np.empty((0, exact.shape[1]))
    return lambda model: compare_encoders(exact, score(model), vectors, texts, with_text)
