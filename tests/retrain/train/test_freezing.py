from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from fixtures.shop import CATEGORIES
from fixtures.small_classifier import write_small_classifier
from jobs.retrain.train.freezing import freeze_early_layers


def freeze(model: nn.Module, side: int) -> tuple[list[nn.Module], set[str]]:
    layers = freeze_early_layers(model, lambda: model(torch.zeros(1, 3, side, side)))
    return layers, {name for name, weight in model.named_parameters() if not weight.requires_grad}


def test_a_convolutional_network_keeps_its_first_stages(tmp_path: Path) -> None:
    write_small_classifier(tmp_path, CATEGORIES)
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    layers, frozen = freeze(model, 32)
    assert {".".join(name.split(".")[1:4]) for name in frozen} == {
        "embedder.embedder.convolution",
        "embedder.embedder.normalization",
        "encoder.stages.0",
        "encoder.stages.1",
    }
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


def test_a_transformer_keeps_its_embeddings_and_first_blocks() -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    model = ViTForImageClassification(config)
    _, frozen = freeze(model, 16)
    assert {name for name, _ in model.named_parameters() if name.startswith("vit.embeddings")} <= frozen
    assert any(name.startswith("vit.layers.1.") for name in frozen)
    assert not [name for name in frozen if name.startswith(("vit.layers.3.", "classifier", "vit.layernorm"))]


def test_layers_count_in_the_order_in_which_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.last(self.first(inputs))
            return answer

    model = Backwards()
    assert freeze_early_layers(model, lambda: model(torch.zeros(1, 4))) == [model.first]


@pytest.mark.parametrize("is_training", [True, False])
def test_looking_at_the_order_leaves_the_model_as_it_is(is_training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).train(
        is_training
    )
    before = {name: values.clone() for name, values in model.state_dict().items()}
    freeze_early_layers(model, lambda: model(torch.rand(2, 3, 9, 9)))
    assert model.training is is_training
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
