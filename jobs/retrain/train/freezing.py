"""Early layers that keep their weights while the later ones learn."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

FROZEN_SHARE = 0.5


def freeze_early_layers(model: Any, forward: Callable[[], object]) -> list[nn.Module]:
    """Freeze the first half of the layers in the order in which ``forward`` runs them; returns these layers.

    Whatever owns weights is a layer, so that embeddings come first and any architecture will do. The layers should
    stay in evaluation mode: a frozen batch norm would otherwise still follow the batches.
    """
    layers = _list_layers(model, forward)
    frozen = layers[: int(FROZEN_SHARE * len(layers))]
    for layer in frozen:
        for weight in layer.parameters(recurse=False):
            weight.requires_grad_(False)
    return frozen


@torch.no_grad()
def _list_layers(model: Any, forward: Callable[[], object]) -> list[nn.Module]:
    order: dict[nn.Module, None] = {}

    def note(layer: nn.Module, _: object) -> None:
        order.setdefault(layer)

    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [module.register_forward_pre_hook(note) for module in owners]
    was_training = model.training
    model.eval()
    try:
        forward()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(order)
