from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from fixtures.shop import CATEGORIES
from fixtures.small_classifier import write_small_classifier
from jobs.retrain.train.layers import WEIGHT_DECAYS, fit_best_head, fit_head, freeze_early_layers


def freeze(model: nn.Module, side: int) -> tuple[list[nn.Module], set[str]]:
    layers = freeze_early_layers(model, lambda: model(torch.zeros(1, 3, side, side)))
    return layers, {name for name, weight in model.named_parameters() if not weight.requires_grad}


def test_the_first_stages_of_a_convolutional_network_are_frozen(tmp_path: Path) -> None:
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


def test_the_embeddings_and_first_blocks_of_a_transformer_are_frozen() -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    model = ViTForImageClassification(config)
    _, frozen = freeze(model, 16)
    assert {name for name, _ in model.named_parameters() if name.startswith("vit.embeddings")} <= frozen
    assert any(name.startswith("vit.layers.1.") for name in frozen)
    assert not [name for name in frozen if name.startswith(("vit.layers.3.", "classifier", "vit.layernorm"))]


def test_layers_are_ordered_by_execution() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.last(self.first(inputs))
            return outputs

    model = Backwards()
    assert freeze_early_layers(model, lambda: model(torch.zeros(1, 4))) == [model.first]


@pytest.mark.parametrize("is_training", [True, False])
def test_recording_the_order_does_not_change_the_model(is_training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).train(
        is_training
    )
    before = {name: values.clone() for name, values in model.state_dict().items()}
    freeze_early_layers(model, lambda: model(torch.rand(2, 3, 9, 9)))
    assert model.training is is_training
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def make_features(count: int, seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Make two categories that differ in one of 40 features, whose scales differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    features = torch.randn(count, 40, generator=generator) * noise
    features[:, 3] += 2 * labels - 1
    return features * torch.logspace(-3, 3, 40), labels


def test_a_head_is_fitted_at_any_scale_of_features() -> None:
    head = nn.Linear(40, 2)
    fit_head(head, *make_features(200, 1, noise=0.3))
    features, labels = make_features(200, 2, noise=0.3)
    assert (head(features).argmax(1) == labels).float().mean() > 0.97


def test_class_weights_move_the_decision_boundary() -> None:
    features, labels = make_features(400, 1, noise=1.5)
    heads = [nn.Linear(40, 2), nn.Linear(40, 2)]
    for head, weights in zip(heads, ([1.0, 1.0], [1.0, 4.0]), strict=True):
        fit_head(head, features, labels, class_weights=torch.tensor(weights))
    even, tilted = ((head(features).argmax(1) == 1).float().mean().item() for head in heads)
    assert tilted > even + 0.1


def test_the_weight_decay_is_chosen_on_validation_and_the_head_is_fitted_on_train() -> None:
    train, validation = make_features(60, 1, noise=1.5), make_features(400, 2, noise=1.5)
    head, expected = nn.Linear(40, 2), nn.Linear(40, 2)
    best = fit_best_head(head, train, validation, torch.ones(2))
    # With few images and much noise, the weakest regularization is not the best.
    assert best > WEIGHT_DECAYS[0]
    fit_head(expected, *train, best, torch.ones(2))
    torch.testing.assert_close(head.weight, expected.weight)
