"""A plain loop over torch's DataLoader: decoded once, both models on each batch; for times see `measurement`.

``--workers 0`` reads and decodes in the loop itself, more in that many processes. They start inside of the time, as
they do in each such loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.measurement import BATCH_SIZE, Answer, Tagged, Work, measure_peer, read_clock
from benchmarks.peers.two_models import Inputs, TwoModels, TwoProcessors


@dataclass(frozen=True)
class Photos(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Each photo as both models see it."""

    paths: Sequence[Path]
    processors: TwoProcessors

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.paths[index]) as photo:
            inputs = self.processors.prepare([photo.convert("RGB")])
        return inputs.classifier[0], inputs.encoder[0]


def tag(work: Work) -> Tagged:
    """Load the models, and loop."""
    processors = TwoProcessors.load(work.classifier, work.encoder)
    models = TwoModels.load(work.classifier, work.encoder, work.dtype)

    def answer(photos: Sequence[Path]) -> dict[Path, Answer]:
        loader: DataLoader[Any] = DataLoader(Photos(photos, processors), BATCH_SIZE, num_workers=work.workers)
        answers = [answer for batch in loader for answer in models.answer(Inputs(*batch))]
        return dict(zip(photos, answers, strict=True))

    answer(work.warm_up)
    started = read_clock()
    return Tagged(answer(work.photos), read_clock() - started)


if __name__ == "__main__":
    measure_peer(tag, ["torch", "torchvision", "transformers", "pillow"])
