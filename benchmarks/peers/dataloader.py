"""Run a plain loop over torch's DataLoader: decode once, call both models. `measurement` defines what is timed.

``--workers 0`` reads and decodes in the loop itself, a higher number in that many processes. Their start is part of the
measured time, because every such loop has to start them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.measurement import BATCH_SIZE, Prediction, TimedPredictions, Work, measure_peer, read_clock
from benchmarks.peers.two_models import Inputs, TwoModels, TwoProcessors


@dataclass(frozen=True)
class Images(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Each image as the input of both models."""

    paths: Sequence[Path]
    processors: TwoProcessors

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.paths[index]) as image:
            inputs = self.processors.prepare([image.convert("RGB")])
        return inputs.classifier[0], inputs.encoder[0]


def tag(work: Work) -> TimedPredictions:
    """Load the models, then predict."""
    processors = TwoProcessors.load(work.classifier, work.encoder)
    models = TwoModels.load(work.classifier, work.encoder, work.dtype)

    def predict(images: Sequence[Path]) -> dict[Path, Prediction]:
        loader: DataLoader[Any] = DataLoader(Images(images, processors), BATCH_SIZE, num_workers=work.workers)
        predictions = [prediction for batch in loader for prediction in models.predict(Inputs(*batch))]
        return dict(zip(images, predictions, strict=True))

    predict(work.warm_up)
    started = read_clock()
    return TimedPredictions(predict(work.images), read_clock() - started)


if __name__ == "__main__":
    measure_peer(tag, ["torch", "torchvision", "transformers", "pillow"])
