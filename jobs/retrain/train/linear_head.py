"""The last layer of a classifier, fitted on features of a frozen backbone."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from jobs.errors import ConfigurationError

WEIGHT_DECAYS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""On standardised features; which is best depends on how many photos there are."""
USUAL_WEIGHT_DECAY = 1e-2
MAX_ITERATIONS = 200


def find_head(model: Any) -> tuple[str, nn.Linear]:
    """The name and module of the last linear layer with one output for each category.

    Raises:
        ConfigurationError: the model ends in something else.
    """
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels and module.bias is not None
    ]
    if not heads:
        raise ConfigurationError(
            f"{type(model).__name__} does not end in a linear layer: its backbone cannot be frozen"
        )
    return heads[-1]


def fit_head(
    head: nn.Linear,
    features: torch.Tensor,
    labels: torch.Tensor,
    weight_decay: float = USUAL_WEIGHT_DECAY,
    class_weights: torch.Tensor | None = None,
) -> None:
    """Fit the layer in place by multinomial logistic regression on features [n, inputs] and labels [n]."""
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    standard = (features - mean) / std
    linear = nn.Linear(head.in_features, head.out_features)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        fit = functional.cross_entropy(linear(standard), labels, class_weights)
        loss = fit + weight_decay * linear.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # The standardisation is folded into the layer, so that the checkpoint needs none.
        weight = linear.weight / std
        head.weight.copy_(weight)
        head.bias.copy_(linear.bias - weight @ mean)


def fit_best_head(
    head: nn.Linear,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    class_weights: torch.Tensor,
) -> float:
    """Fit the layer on features and labels of the train photos; returns the weight decay that suits validation best."""

    def measure(weight_decay: float) -> float:
        fit_head(head, *train, weight_decay, class_weights)
        with torch.inference_mode():
            return functional.cross_entropy(head(validation[0]), validation[1]).item()

    best = min(WEIGHT_DECAYS, key=measure)
    fit_head(head, *train, best, class_weights)
    return best
