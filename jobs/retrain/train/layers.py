"""Freeze the early layers of a model, and fit a classifier's last layer on features of a frozen backbone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from jobs.cores import count_cores
from jobs.errors import ConfigurationError
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.train.context import TrainingContext, keep_threads

BATCH_SIZE = 32
DECODING_THREADS = 4
"""Threads that decode the images for a GPU."""
FROZEN_SHARE = 0.5
WEIGHT_DECAYS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Weight decays to try, for standardized features. The best one depends on the number of images."""
DEFAULT_WEIGHT_DECAY = 1e-2
MAX_ITERATIONS = 200


def freeze_early_layers(model: Any, forward: Callable[[], object]) -> list[nn.Module]:
    """Freeze the first half of the layers, in the order in which ``forward`` runs them, and return them.

    Every module with its own weights is a layer, so embeddings come first and any architecture works. The caller must
    keep these layers in evaluation mode. Otherwise a frozen batch norm would still update its statistics.
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

    def record(layer: nn.Module, _: object) -> None:
        order.setdefault(layer)

    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [module.register_forward_pre_hook(record) for module in owners]
    was_training = model.training
    model.eval()
    try:
        forward()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(order)


def find_head(model: Any) -> tuple[str, nn.Linear]:
    """Return the name and module of the last linear layer that has one output per category.

    Raises:
        ConfigurationError: the model has no such layer.
    """
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels and module.bias is not None
    ]
    if not heads:
        raise ConfigurationError(
            f"{type(model).__name__} does not end in a linear layer, so its backbone cannot be frozen: use "
            "--freeze early or --freeze nothing"
        )
    return heads[-1]


def compute_features(
    model: Any, preprocessing: Preprocessing, images: ImageShards, context: TrainingContext, mirrored: bool = False
) -> torch.Tensor:
    """Return the logits of a model without a head, as float32 on the CPU. A CPU computes one batch per core."""
    device = context.device
    model.eval().to(device.torch_device, memory_format=torch.channels_last)

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        moved = pixels.to(device.torch_device)
        inputs = preprocessing.normalize(moved.flip(3) if mirrored else moved, torch.float32)
        with (
            torch.inference_mode(),
            torch.autocast(device.torch_device.type, device.dtype, enabled=device.dtype is not torch.float32),
        ):
            outputs: torch.Tensor = model(pixel_values=inputs.contiguous(memory_format=torch.channels_last)).logits
        return outputs.float().cpu()

    threads = DECODING_THREADS if device.is_cuda else count_cores()
    with keep_threads():
        torch.set_num_threads(1)
        return torch.cat(context.map_batches("computing features", forward, images, BATCH_SIZE, threads))


def fit_head(
    head: nn.Linear,
    features: torch.Tensor,
    labels: torch.Tensor,
    weight_decay: float = DEFAULT_WEIGHT_DECAY,
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
        # Fold the standardization into the layer, because checkpoints cannot store it separately.
        weight = linear.weight / std
        head.weight.copy_(weight)
        head.bias.copy_(linear.bias - weight @ mean)


def fit_best_head(
    head: nn.Linear,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    class_weights: torch.Tensor,
) -> float:
    """Fit the layer on the train features and labels. Return the weight decay, chosen by the validation loss."""

    def measure(weight_decay: float) -> float:
        fit_head(head, *train, weight_decay, class_weights)
        with torch.inference_mode():
            return functional.cross_entropy(head(validation[0]), validation[1]).item()

    best = min(WEIGHT_DECAYS, key=measure)
    fit_head(head, *train, best, class_weights)
    return best
