import torch
from torch import nn

from jobs.retrain.train.linear_head import WEIGHT_DECAYS, fit_best_head, fit_head


def make_features(count: int, seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two categories that differ in one of 40 features, whose scales differ by far."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    features = torch.randn(count, 40, generator=generator) * noise
    features[:, 3] += 2 * labels - 1
    return features * torch.logspace(-3, 3, 40), labels


def test_a_head_is_fitted_whatever_the_scales() -> None:
    head = nn.Linear(40, 2)
    fit_head(head, *make_features(200, 1, noise=0.3))
    features, labels = make_features(200, 2, noise=0.3)
    assert (head(features).argmax(1) == labels).float().mean() > 0.97


def test_weights_of_classes_move_the_border() -> None:
    features, labels = make_features(400, 1, noise=1.5)
    heads = [nn.Linear(40, 2), nn.Linear(40, 2)]
    for head, weights in zip(heads, ([1.0, 1.0], [1.0, 4.0]), strict=True):
        fit_head(head, features, labels, class_weights=torch.tensor(weights))
    even, tilted = ((head(features).argmax(1) == 1).float().mean().item() for head in heads)
    assert tilted > even + 0.1


def test_the_weight_decay_is_chosen_on_validation_and_the_head_fitted_on_train() -> None:
    train, validation = make_features(60, 1, noise=1.5), make_features(400, 2, noise=1.5)
    head, expected = nn.Linear(40, 2), nn.Linear(40, 2)
    best = fit_best_head(head, train, validation, torch.ones(2))
    # Few photos and much noise: the least regularised is not the best.
    assert best > WEIGHT_DECAYS[0]
    fit_head(expected, *train, best, torch.ones(2))
    torch.testing.assert_close(head.weight, expected.weight)
