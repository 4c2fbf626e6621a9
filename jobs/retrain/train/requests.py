"""Training requests and their defaults. This module imports neither torch nor transformers."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from jobs.database.model_versions import ModelKind
from jobs.errors import RefusedError

Freeze = Literal["backbone", "early", "nothing"]

MAX_EPOCHS = 15
BUDGET_MINUTES = 60.0
"""Default time of the epochs of one training on a CPU."""
MIN_STEPS = 40
"""Minimum number of steps in an epoch for a larger batch size."""
MAX_BATCH_SIZE = 256
"""Maximum batch size on a GPU. Smaller batches leave it waiting for the CPU, which starts its kernels."""


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of the training loop. The learning rate warms up linearly and decays along a cosine.

    An epoch is one pass over the train images. Training stops after ``patience`` epochs without a lower validation
    loss, and keeps the best epoch. With ``budget_minutes``, ``epochs`` is the maximum, and the number of epochs is
    chosen by the measured speed. Batches grow up to ``max_batch_size`` while an epoch keeps enough steps.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    patience: int = 2
    seed: int = 7
    budget_minutes: float | None = None
    max_batch_size: int = 0

    def fit_batch_size(self, images: int) -> "Hyperparameters":
        """Double the batch size as often as possible. ``images`` is the number of train images per process."""
        size = self.batch_size
        while 2 * size <= self.max_batch_size and images >= MIN_STEPS * 2 * size:
            size *= 2
        return replace(self, batch_size=size)


@dataclass(frozen=True)
class Augmentation:
    """Limits of the random changes.

    The smallest share of the area to keep, the rotation, the strength of the color jitter, and the probability that a
    rectangle is erased.
    """

    smallest_crop: float = 0.8
    rotation_degrees: float = 5.0
    color_jitter: float = 0.1
    erasing: float = 0.0


STRONG = Augmentation(smallest_crop=0.4, rotation_degrees=10, color_jitter=0.3, erasing=0.3)
"""For many epochs of all layers."""

FLIP_AND_CROP = Augmentation(smallest_crop=0.7, rotation_degrees=0, color_jitter=0)
"""For the sample catalog, which is already rendered with random rotation and lighting."""


@dataclass(frozen=True)
class ClassifierTraining:
    """Train a classifier from the checkpoint ``base``.

    ``freeze`` selects the layers that keep their weights: "backbone" fits a new head on features that are computed
    once, without epochs; "early" keeps the first half of the layers.
    """

    kind: ClassVar[ModelKind] = "classifier"
    base: Path
    freeze: Freeze
    hyperparameters: Hyperparameters
    augmentation: Augmentation = field(default_factory=Augmentation)
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class EncoderTraining:
    """Train both towers from the checkpoint ``base``. With 0 epochs, the base itself becomes the candidate.

    ``category_weight`` is the weight of a second loss, the classification of images by the names of the categories.
    The loss on texts has weight 1. From texts, an encoder with random weights learns mostly colors: few images in a
    batch share color and pattern, so it rarely needs their shape to distinguish them.
    """

    kind: ClassVar[ModelKind] = "encoder"
    base: Path
    hyperparameters: Hyperparameters
    augmentation: Augmentation = field(default_factory=Augmentation)
    freeze_early: bool = False
    mine_hard_negatives: bool = False
    category_weight: float = 0.0


TrainingRequest = ClassifierTraining | EncoderTraining


@dataclass(frozen=True)
class TrainingOptions:
    """Training options of the caller. None means the default of the kind.

    ``from_scratch`` is for bases with random weights: a high learning rate, mild augmentation, and a loss on the names
    of the categories.
    """

    epochs: int | None = None
    budget_minutes: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    freeze: Freeze | None = None
    mine_hard_negatives: bool = False
    from_scratch: bool = False


def needs_all_processes(request: TrainingRequest) -> bool:
    """Return whether the training runs in epochs, the only part that several GPUs can share."""
    if isinstance(request, ClassifierTraining):
        return request.freeze != "backbone"
    return request.hyperparameters.epochs > 0


def make_request(kind: ModelKind, base: Path, options: TrainingOptions, on_gpu: bool = False) -> TrainingRequest:
    """Combine the options with the defaults of the kind and of the device.

    Raises:
        RefusedError: the kind does not support one of the options.
    """
    if kind == "classifier":
        return _make_classifier_request(base, options, on_gpu)
    return _make_encoder_request(base, options, on_gpu)


def _make_classifier_request(base: Path, options: TrainingOptions, on_gpu: bool) -> ClassifierTraining:
    if options.from_scratch:
        defaults = Hyperparameters(epochs=6, batch_size=32, learning_rate=3e-3, patience=6)
        request = ClassifierTraining(base, "nothing", defaults, FLIP_AND_CROP)
    elif on_gpu:
        defaults = Hyperparameters(
            epochs=MAX_EPOCHS, batch_size=64, learning_rate=1e-3, patience=MAX_EPOCHS, max_batch_size=MAX_BATCH_SIZE
        )
        request = ClassifierTraining(base, "nothing", defaults, STRONG)
    else:
        # Training all layers takes 1.6 times as long: docs/decisions/training-recipe.md.
        defaults = Hyperparameters(
            epochs=MAX_EPOCHS, batch_size=32, learning_rate=2e-3, patience=4, budget_minutes=BUDGET_MINUTES
        )
        request = ClassifierTraining(base, "early", defaults)
    if options.mine_hard_negatives:
        raise RefusedError("hard negatives are only for encoders: remove --mine-hard-negatives")
    if options.epochs == 0:
        raise RefusedError("a classifier needs at least 1 epoch to learn the categories, got --epochs 0")
    return replace(
        request,
        hyperparameters=_override(request.hyperparameters, options),
        freeze=options.freeze or request.freeze,
    )


def _make_encoder_request(base: Path, options: TrainingOptions, on_gpu: bool) -> EncoderTraining:
    if options.freeze == "backbone":
        raise RefusedError("an encoder has no head to train alone: use --freeze early or --freeze nothing")
    if options.from_scratch:
        defaults = Hyperparameters(epochs=12, batch_size=32, learning_rate=1.5e-3, patience=12)
        request = EncoderTraining(base, defaults, FLIP_AND_CROP, category_weight=0.7)
    elif on_gpu:
        defaults = Hyperparameters(epochs=5, batch_size=64, learning_rate=5e-6, max_batch_size=MAX_BATCH_SIZE)
        request = EncoderTraining(base, defaults)
    else:
        defaults = Hyperparameters(epochs=5, batch_size=32, learning_rate=5e-6, budget_minutes=BUDGET_MINUTES)
        request = EncoderTraining(base, defaults)
    return replace(
        request,
        hyperparameters=_override(request.hyperparameters, options),
        freeze_early=options.freeze == "early",
        mine_hard_negatives=options.mine_hard_negatives,
    )


def _override(defaults: Hyperparameters, options: TrainingOptions) -> Hyperparameters:
    """Replace defaults by options. A given number of epochs or images in a batch is not adapted, unless asked for."""
    given: dict[str, Any] = {
        "epochs": options.epochs,
        "budget_minutes": options.budget_minutes,
        "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    fixed: dict[str, Any] = {} if options.epochs is None else {"budget_minutes": None}
    if options.batch_size is not None:
        fixed["max_batch_size"] = 0
    return replace(defaults, **fixed | {name: value for name, value in given.items() if value is not None})
