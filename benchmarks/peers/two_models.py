"""Run both models as the Transformers documentation shows, for peers that provide only a loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPVisionModelWithProjection

from benchmarks.peers.measurement import Prediction

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Inputs:
    """The inputs of the classifier and the encoder for the same images, each float32 [n, 3, h, w]."""

    classifier: torch.Tensor
    encoder: torch.Tensor


@dataclass(frozen=True)
class TwoProcessors:
    """The preprocessing of both checkpoints, which needs no weights."""

    classifier: Any
    encoder: Any

    @classmethod
    def load(cls, classifier: Path, encoder: Path) -> Self:
        """Load both processors from their checkpoints."""
        return cls(*(AutoImageProcessor.from_pretrained(one, local_files_only=True) for one in (classifier, encoder)))

    def prepare(self, images: Sequence[Any]) -> Inputs:
        """Preprocess RGB images of any size: Pillow images or uint8 arrays [height, width, 3]."""
        # Without this, Transformers guesses the layout of an array.
        options = {"return_tensors": "pt", "input_data_format": "channels_last"}
        return Inputs(*(one(list(images), **options)["pixel_values"] for one in (self.classifier, self.encoder)))


@dataclass(frozen=True)
class TwoModels:
    """A classifier and the image tower of a CLIP, on the CPU."""

    classifier: Any
    encoder: Any
    dtype: torch.dtype

    @classmethod
    def load(cls, classifier: Path, encoder: Path, dtype: str) -> Self:
        """Load both models for inference, with weights in ``dtype``."""
        options = {"dtype": DTYPES[dtype], "local_files_only": True, "use_safetensors": True}
        return cls(
            AutoModelForImageClassification.from_pretrained(classifier, **options).eval(),
            CLIPVisionModelWithProjection.from_pretrained(encoder, **options).eval(),
            DTYPES[dtype],
        )

    @torch.inference_mode()
    def predict(self, inputs: Inputs) -> list[Prediction]:
        """Return a prediction for each image, in order."""
        logits = self.classifier(pixel_values=inputs.classifier.to(self.dtype)).logits
        best = logits.float().softmax(1).max(1)
        vectors = self.encoder(pixel_values=inputs.encoder.to(self.dtype)).image_embeds.float().numpy()
        names = self.classifier.config.id2label
        return [
            Prediction(names[int(category)], float(confidence), vector)
            for category, confidence, vector in zip(best.indices, best.values, vectors, strict=True)
        ]
