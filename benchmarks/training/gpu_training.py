"""Measure training on a GPU: images per second and how busy the GPU is, with the default recipes.

    python -m benchmarks.training.gpu_training
    python -m benchmarks.training.gpu_training --images 40000 --epochs 3 --batch-size 128

Needs neither bucket nor database. A ResNet-18 and a CLIP ViT-B/32 with random weights are trained on generated images,
with everything that a training does after it has stored its images: reading, decoding, augmentation, steps, validation
and checkpoints. The speed is that of the epochs without validation and checkpoints. How busy the GPU is comes from
nvidia-smi, four times a second during the epochs. It also runs on a CPU, but the figures are then meaningless.
"""

import argparse
import shutil
import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.models import write_checkpoints
from benchmarks.results import Row, publish
from benchmarks.training.generated_images import make_rows, write_generated
from jobs.database.model_versions import ModelKind
from jobs.models.device import choose_device
from jobs.models.preprocessing import Preprocessing
from jobs.progress import Progress
from jobs.retrain.snapshot.snapshot_file import make_snapshot
from jobs.retrain.snapshot.snapshot_images import SnapshotImages
from jobs.retrain.train.context import TrainedModel, TrainingContext
from jobs.retrain.train.epochs import count_processes
from jobs.retrain.train.requests import ClassifierTraining, TrainingOptions, TrainingRequest, make_request
from jobs.retrain.train.train_classifier import train_classifier
from jobs.retrain.train.train_encoder import train_encoder
from jobs.retrain.train.whole_images import enlarge, read_whole_images
from jobs.scratch import open_scratch

VALIDATION_IMAGES = 1000
SAMPLE_SECONDS = 0.25
NAMES: dict[ModelKind, str] = {"classifier": "ResNet-18", "encoder": "CLIP ViT-B/32"}


def main() -> None:
    """Train both models and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="instead of the size that the training chooses")
    parser.add_argument("--kinds", nargs="+", choices=list(NAMES), default=list(NAMES))
    arguments = parser.parse_args()
    is_gpu = choose_device("auto", "auto").is_cuda
    options = TrainingOptions(epochs=arguments.epochs, batch_size=arguments.batch_size)
    with open_scratch() as scratch:
        checkpoints = write_checkpoints(scratch)
        bases = {"classifier": checkpoints.classifier, "encoder": checkpoints.encoder}
        rows = [
            measure(make_request(kind, bases[kind], options, is_gpu), arguments.images, scratch / kind)
            for kind in arguments.kinds
        ]
    device = torch.cuda.get_device_name() if is_gpu else "no GPU"
    publish(
        "Training on a GPU",
        f"{arguments.epochs} epochs of all layers on {arguments.images:,} generated images at 224 px, on one {device}.",
        rows,
        targets="ResNet-18 3,000 images/s, CLIP 800 images/s, GPU busy 70 %",
        packages=["torch", "transformers", "pillow"],
    )


def measure(request: TrainingRequest, count: int, folder: Path) -> Row:
    """Write the images and train on them."""
    progress = Progress()
    context = open_context(request, count, folder, progress)
    with watch_gpu(progress) as busy:
        trained = _train(request, context)
    row: Row = {
        "model": NAMES[request.kind],
        "batch": request.hyperparameters.fit_batch_size(count // count_processes()).batch_size,
        "precision": context.device.precision,
        "images/s": trained.images_per_second,
        "GPU busy": f"{statistics.mean(busy):.0f} %" if busy else None,
    }
    print(f"  {row}", flush=True)
    return row


def open_context(request: TrainingRequest, count: int, folder: Path, progress: Progress) -> TrainingContext:
    """Write generated images where the training looks for them."""
    snapshot = make_snapshot([*make_rows(count, "train"), *make_rows(VALIDATION_IMAGES, "validation")])
    # All shards exist before the training starts, so the store is never used.
    images = SnapshotImages(None, None)  # type: ignore[arg-type]
    context = TrainingContext(snapshot, images, choose_device("auto", "auto"), folder / "checkpoints", progress)
    if isinstance(request, ClassifierTraining):
        geometry = read_whole_images(request.base).geometry
        larger = enlarge(geometry)
    else:
        geometry = larger = Preprocessing.from_checkpoint(request.base).geometry
    train, validation = snapshot.part("train"), snapshot.part("validation")
    write_generated(context.locate_shards(train, larger), len(train), larger)
    write_generated(context.locate_shards(validation, geometry), len(validation), geometry)
    return context


def _train(request: TrainingRequest, context: TrainingContext) -> TrainedModel:
    if isinstance(request, ClassifierTraining):
        return train_classifier(request, context)
    return train_encoder(request, context)


@contextmanager
def watch_gpu(progress: Progress) -> Iterator[list[float]]:
    """Collect how busy the first GPU is during the epochs, in percent. Without nvidia-smi, collect nothing."""
    busy: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not is_over.wait(SAMPLE_SECONDS):
            # The first steps of the first epoch compile kernels and start workers.
            if progress.latest and progress.latest.stage == "training" and progress.latest.done > 0:
                busy.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout))

    if not shutil.which("nvidia-smi"):
        yield busy
        return
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield busy
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    main()
