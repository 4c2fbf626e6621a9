from collections.abc import Sequence

import numpy as np
import torch

from fixtures.candidates import EXACT
from fixtures.shop import TinyModels
from jobs.retrain.evaluate.served_model import load_trained_model


def test_images_are_loaded_in_batches_and_predicted_in_order(tiny_models: TinyModels) -> None:
    model = load_trained_model(tiny_models.classifier, "classifier", EXACT)
    size, side = model.model.batch_size, model.geometry.crop_to
    pixels = torch.randint(0, 256, (2 * size + 1, 3, side, side), dtype=torch.uint8)
    loaded: list[int] = []

    def load(numbers: Sequence[int]) -> torch.Tensor:
        loaded.append(len(numbers))
        return pixels[list(numbers)]

    outputs = model.predict_in_batches(range(len(pixels)), load)
    assert sorted(loaded) == [1, size, size]
    np.testing.assert_allclose(outputs, model.predict(pixels), atol=1e-5)
