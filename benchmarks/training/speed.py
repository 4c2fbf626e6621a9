"""Measure the speed of training: the trainer's loop compared with a plain torch loop, and a new head on real images.

    python -m benchmarks.training.speed
    python -m benchmarks.training.speed --loop-images 320 --rounds 3

Both loops train all layers of the same model on the same augmented images, with the same order, precision and batches.
A round is one epoch of each loop. Each round has its own ratio, because machines are noisy. The training of the new
head includes everything: reading images from a bucket, computing features, fitting and calibrating the head, and
storing and registering the checkpoint.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModelForImageClassification

from benchmarks.results import format_range, publish
from benchmarks.stack import open_stack
from fixtures.real_data import REAL_IMAGES, find_pretrained
from jobs.connections import Connections, connect
from jobs.database.examples import insert_snapshot
from jobs.images.geometry import Geometry
from jobs.models.device import Device, choose_device
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.snapshot.image_shards import ImageShards, encode, write_shards
from jobs.retrain.snapshot.snapshot_file import Snapshot, SnapshotRow, Split, encode_snapshot, make_snapshot
from jobs.retrain.train.loop import BatchResult, TrainingTask, train
from jobs.retrain.train.requests import Augmentation, ClassifierTraining, Hyperparameters
from jobs.retrain.train.train import TrainingReport, train_candidate
from jobs.retrain.train.training_images import AugmentedImages, Images, take_batch
from jobs.retrain.train.whole_images import enlarge, read_whole_images
from jobs.scratch import open_scratch
from jobs.settings import make_settings
from jobs.storage.locations import example_location, snapshot_location

CATEGORIES = 10
VALIDATION_IMAGES = 32


@dataclass(frozen=True)
class Round:
    """Images per second of each loop."""

    trainer: float
    plain: float

    @property
    def ratio(self) -> float:
        """Return the trainer's speed as a share of the plain loop's."""
        return self.trainer / self.plain


def main() -> None:
    """Measure the loops and the new head, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=find_pretrained(), help="checkpoint of an image classifier")
    parser.add_argument(
        "--images", type=Path, default=REAL_IMAGES / "train", help="folder with a subfolder per category"
    )
    parser.add_argument("--loop-images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    paths = sorted(arguments.images.glob("*/*.jpg"))
    with open_scratch() as folder:
        rounds = measure_loops(arguments.base, paths[:: len(paths) // arguments.loop_images], folder, arguments.rounds)
    report = train_head(arguments.base, paths)
    publish(
        "Training speed",
        f"{arguments.base.name}: full fine-tuning compared with a plain torch loop in {arguments.rounds} interleaved "
        f"rounds, and a new head on a frozen backbone, from {len(paths):,} real images in the bucket to the registered "
        "checkpoint.",
        [
            {
                "trainer loop, share of a plain loop": format_range([one.ratio for one in rounds], 2),
                "images/s": format_range([one.trainer for one in rounds], 0),
                "new head, images": len(paths),
                "new head, s": round(report.seconds),
            }
        ],
        targets="0.90, 120 s",
        packages=["torch", "transformers"],
    )


def measure_loops(base: Path, paths: Sequence[Path], folder: Path, rounds: int) -> list[Round]:
    """Run epochs of both loops in turn. The first epoch of each is a warm-up."""
    device, preprocessing = choose_device("auto", "auto"), read_whole_images(base)
    images = _store_shards(paths, enlarge(preprocessing.geometry), folder / "train")
    validation = _store_shards(paths[:VALIDATION_IMAGES], preprocessing.geometry, folder / "validation")
    labels = torch.arange(len(paths)) % CATEGORIES
    settings = Hyperparameters(epochs=1, batch_size=32, learning_rate=1e-3)
    results = []
    for number in range(rounds + 1):
        task = _make_task(preprocessing, images, validation, labels)
        with tempfile.TemporaryDirectory() as checkpoints:
            trained = train(_load_model(base), task, settings, device, Path(checkpoints))
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


def _store_shards(paths: Sequence[Path], geometry: Geometry, folder: Path) -> ImageShards:
    write_shards(folder, [[encode(geometry.resize(Image.open(path).convert("RGB"))) for path in paths]])
    return ImageShards(folder, geometry.crop_to)


def _make_task(
    preprocessing: Preprocessing, images: ImageShards, validation: ImageShards, labels: torch.Tensor
) -> TrainingTask:
    def measure_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> BatchResult:
        inputs = preprocessing.normalize(batch["pixels"], torch.float32).contiguous(memory_format=torch.channels_last)
        logits = model(pixel_values=inputs).logits.float()
        return BatchResult(functional.cross_entropy(logits, batch["labels"]), logits.argmax(1) == batch["labels"])

    augmented = AugmentedImages(images, {"labels": labels}, Augmentation(), preprocessing.geometry.crop_to, seed=1)
    return TrainingTask("loop", augmented, Images(validation, {"labels": labels}), measure_loss)


def _run_plain_epoch(model: torch.nn.Module, task: TrainingTask, settings: Hyperparameters, device: Device) -> float:
    """Return the images per second of a plain loop, which only trains."""
    loader = torch.utils.data.DataLoader(task.train, settings.batch_size, shuffle=True, collate_fn=take_batch)
    model.to(device.torch_device).train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    started = time.perf_counter()
    for batch in loader:
        moved = task.train.augment({name: values.to(device.torch_device) for name, values in batch.items()})
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


def train_head(base: Path, images: list[Path]) -> TrainingReport:
    """Fit a new head on images. A tenth of them are used to choose the regularization."""
    request = ClassifierTraining(base, "backbone", Hyperparameters(epochs=1, batch_size=32, learning_rate=1e-3))
    with open_stack() as stack, connect(make_settings(stack.environment)) as connections:
        snapshot = _store_images(connections, images)
        return train_candidate(connections, "benchmark", snapshot.snapshot_id, request)


def _store_images(connections: Connections, paths: list[Path]) -> Snapshot:
    """Store images as an import does, each in its own group."""
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
