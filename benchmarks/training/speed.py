"""How fast models are trained: the loop beside a plain one of torch, and a new head on real photos.

    python -m benchmarks.training.speed BASE PHOTOS
    python -m benchmarks.training.speed BASE PHOTOS --loop-photos 320 --rounds 3

BASE is a checkpoint of an image classifier, PHOTOS an ImageFolder (one subfolder a category). Both loops train all
layers of the same model on the same augmented photos, in the same order, precision and batches; a round is an epoch
of each, one after the other, and ratios are taken inside a round, since machines are noisy. The new head goes the
whole way: photos from a bucket, features, the fit, calibration, the checkpoint back to the bucket and into Postgres.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoModelForImageClassification

from fixtures.stack_access import read_environment
from jobs.connections import Connections, connect
from jobs.database.examples import insert_snapshot
from jobs.database.migrations import migrate
from jobs.local.ports import WantedPorts
from jobs.local.stack import start_stack, stop_stack
from jobs.models.device import Device, choose_device
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, Split, encode_snapshot, make_snapshot
from jobs.retrain.train.augmentation import AugmentedPhotos, Photos, build_augmentation, enlarge, read_whole_photos
from jobs.retrain.train.loop import BatchResult, TrainingTask, train
from jobs.retrain.train.requests import Augmentation, ClassifierTraining, TrainingSettings
from jobs.retrain.train.train import TrainingReport, train_candidate
from jobs.settings import load_settings
from jobs.storage.layout import example_location, snapshot_location

CATEGORIES = 10
VALIDATION_PHOTOS = 32


@dataclass(frozen=True)
class Round:
    """Images per second of each loop."""

    trainer: float
    plain: float

    @property
    def ratio(self) -> float:
        """How fast the Trainer is, as a share of the plain loop."""
        return self.trainer / self.plain


def main() -> None:
    """Measure both and print figures, as a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--loop-photos", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds = measure_loops(arguments.base, arguments.loop_photos, arguments.rounds)
    report = train_head(arguments.base, arguments.photos)
    ratios = [one.ratio for one in rounds]
    print(f"Trainer's share of a plain loop: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"new head: {report.seconds:.0f} s, right on {report.metrics['validation_accuracy']:.1%} of validation")
    summary = {
        "rounds": [{"trainer": one.trainer, "plain": one.plain, "ratio": one.ratio} for one in rounds],
        "head_seconds": report.seconds,
        "head_metrics": report.metrics,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(summary))


def measure_loops(base: Path, photos: int, rounds: int) -> list[Round]:
    """Interleaved epochs of both loops, after one of each that does not count."""
    device, preprocessing = choose_device("auto", "auto"), read_whole_photos(base)
    side = enlarge(preprocessing.geometry).crop_to
    pixels = torch.randint(0, 256, (photos, 3, side, side), dtype=torch.uint8)
    labels = torch.arange(photos) % CATEGORIES
    settings = TrainingSettings(epochs=1, batch_size=32, learning_rate=1e-3)
    results = []
    for number in range(rounds + 1):
        task = _make_task(preprocessing, pixels, labels)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(_load_model(base), task, settings, device, Path(folder))
        assert trained.images_per_second is not None
        result = Round(trained.images_per_second, _run_plain_epoch(_load_model(base), task, settings, device))
        if number:
            results.append(result)
            print(f"  Trainer {result.trainer:.1f}, plain {result.plain:.1f} images/s: {result.ratio:.2f}", flush=True)
    return results


def _load_model(base: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForImageClassification.from_pretrained(
        base, local_files_only=True, use_safetensors=True, num_labels=CATEGORIES, ignore_mismatched_sizes=True
    )
    return model.to(memory_format=torch.channels_last)


def _make_task(preprocessing: Preprocessing, pixels: torch.Tensor, labels: torch.Tensor) -> TrainingTask:
    def ask(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> BatchResult:
        inputs = preprocessing.normalize(batch["pixels"], torch.float32).contiguous(memory_format=torch.channels_last)
        logits = model(pixel_values=inputs).logits.float()
        return BatchResult(functional.cross_entropy(logits, batch["labels"]), logits.argmax(1) == batch["labels"])

    side = preprocessing.geometry.crop_to
    validation = Photos(pixels[:VALIDATION_PHOTOS, :, :side, :side], {"labels": labels[:VALIDATION_PHOTOS]})
    augmented = AugmentedPhotos(pixels, {"labels": labels}, build_augmentation(Augmentation(), side), seed=1)
    return TrainingTask("loop", augmented, validation, ask)


def _run_plain_epoch(model: torch.nn.Module, task: TrainingTask, settings: TrainingSettings, device: Device) -> float:
    """Images per second of a loop that does nothing but train."""
    loader = torch.utils.data.DataLoader(task.train, settings.batch_size, shuffle=True)
    model.to(device.torch_device).train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    started = time.perf_counter()
    for batch in loader:
        moved = {name: values.to(device.torch_device) for name, values in batch.items()}
        is_mixed = device.dtype is not torch.float32
        with torch.autocast(device.torch_device.type, device.dtype, enabled=is_mixed):
            loss = task.objective(model, moved).loss
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    if device.is_cuda:
        torch.cuda.synchronize()
    return len(task.train) / (time.perf_counter() - started)


def train_head(base: Path, photos: Path) -> TrainingReport:
    """Fit a new head on all photos of a folder, a tenth of which says how much to regularise."""
    request = ClassifierTraining(base, "backbone", TrainingSettings(epochs=1, batch_size=32, learning_rate=1e-3))
    with _open_stack() as connections:
        snapshot = _store_photos(connections, sorted(photos.glob("*/*.jpg")))
        return train_candidate(connections, "benchmark", snapshot.snapshot_id, request)


@contextmanager
def _open_stack() -> Iterator[Connections]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        start_stack(folder / "stack", WantedPorts(), None)
        os.environ.update(read_environment(folder / "stack"))
        os.environ["CATALOG_MODEL_CACHE"] = str(folder / "models")
        migrate(os.environ["CATALOG_DATABASE_URL"])
        with connect(load_settings()) as connections:
            yield connections
    finally:
        stop_stack(folder / "stack")
        shutil.rmtree(folder)


def _store_photos(connections: Connections, paths: list[Path]) -> Snapshot:
    """Put photos where imports put them, each as a group of its own."""
    rows = []
    for path in paths:
        content = path.read_bytes()
        content_hash = hashlib.sha256(content).hexdigest()
        connections.store.write(example_location(connections.artifacts, content_hash), content)
        split: Split = "validation" if content_hash < "1a" else "train"
        rows.append(SnapshotRow(content_hash, "0" * 64, path.parent.name, "", path.name, split))
    snapshot = make_snapshot(rows)
    location = snapshot_location(connections.artifacts, snapshot.snapshot_id)
    connections.store.write(location, encode_snapshot(snapshot))
    with connections.engine.begin() as connection:
        insert_snapshot(connection, snapshot.snapshot_id, str(location), {})
    return snapshot


if __name__ == "__main__":
    main()
