"""What a training is asked to do: records that are light to import, and the defaults for what a caller leaves open."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from jobs.database.model_versions import ModelKind
from jobs.errors import RefusedError

Freeze = Literal["backbone", "early", "nothing"]


@dataclass(frozen=True)
class TrainingSettings:
    """One pass over the photos is an epoch; the learning rate rises to its peak and falls along a cosine.

    Training ends after ``patience`` epochs without a lower loss on the validation photos, and the best epoch counts.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    patience: int = 2
    seed: int = 7


@dataclass(frozen=True)
class Augmentation:
    """How far a photo may be changed: share of its area kept, degrees of rotation, strength of colour jitter."""

    smallest_crop: float = 0.8
    rotation_degrees: float = 5.0
    color_jitter: float = 0.1


FLIP_AND_CROP = Augmentation(smallest_crop=0.7, rotation_degrees=0, color_jitter=0)
"""The sample catalog is itself turned and lit at random."""


@dataclass(frozen=True)
class ClassifierTraining:
    """Train from the checkpoint ``base``.

    ``freeze`` is what keeps its weights: "backbone" fits a new head on features that are computed once, and has no
    epochs; "early" keeps the layers of the first half.
    """

    kind: ClassVar[ModelKind] = "classifier"
    base: Path
    freeze: Freeze
    settings: TrainingSettings
    augmentation: Augmentation = field(default_factory=Augmentation)
    label_smoothing: float = 0.1


@dataclass(frozen=True)
class EncoderTraining:
    """Train both towers from the checkpoint ``base``; without epochs it is taken as it is.

    ``category_weight`` is the weight of telling the categories apart by their names, beside that of the texts, 1.
    Texts alone teach an encoder without weights little but colour: few others in a batch share a photo's colour
    and pattern, so that its shape is seldom needed to tell them apart.
    """

    kind: ClassVar[ModelKind] = "encoder"
    base: Path
    settings: TrainingSettings
    augmentation: Augmentation = field(default_factory=Augmentation)
    freeze_early: bool = False
    mine_hard_negatives: bool = False
    category_weight: float = 0.0


TrainingRequest = ClassifierTraining | EncoderTraining


@dataclass(frozen=True)
class TrainingOptions:
    """What a caller may ask for; None stands for the default of the kind.

    ``from_scratch`` is for bases with random weights: large steps, mild augmentation, and categories by their names.
    """

    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    freeze: Freeze | None = None
    mine_hard_negatives: bool = False
    from_scratch: bool = False


def make_request(kind: ModelKind, base: Path, options: TrainingOptions) -> TrainingRequest:
    """Fill in what the options leave open.

    Raises:
        RefusedError: the options ask for what this kind cannot do.
    """
    if kind == "classifier":
        return _make_classifier_request(base, options)
    return _make_encoder_request(base, options)


def _make_classifier_request(base: Path, options: TrainingOptions) -> ClassifierTraining:
    if options.from_scratch:
        settings = TrainingSettings(epochs=6, batch_size=32, learning_rate=3e-3, patience=6)
        request = ClassifierTraining(base, "nothing", settings, FLIP_AND_CROP)
    else:
        # Training all layers takes 1.6 times as long, and was no better: docs/decisions/whole-images.md.
        settings = TrainingSettings(epochs=5, batch_size=32, learning_rate=2e-3)
        request = ClassifierTraining(base, "early", settings)
    if options.mine_hard_negatives:
        raise RefusedError("a classifier has no batches of hard negatives: mine them for an encoder")
    if options.epochs == 0:
        raise RefusedError("a classifier of no epochs would not know the categories: ask for 1 at least")
    return replace(request, settings=_fill_settings(request.settings, options), freeze=options.freeze or request.freeze)


def _make_encoder_request(base: Path, options: TrainingOptions) -> EncoderTraining:
    if options.freeze == "backbone":
        raise RefusedError("an encoder has no head to train alone: freeze early layers or nothing")
    if options.from_scratch:
        settings = TrainingSettings(epochs=12, batch_size=32, learning_rate=1.5e-3, patience=12)
        request = EncoderTraining(base, settings, FLIP_AND_CROP, category_weight=0.7)
    else:
        request = EncoderTraining(base, TrainingSettings(epochs=5, batch_size=32, learning_rate=5e-6))
    return replace(
        request,
        settings=_fill_settings(request.settings, options),
        freeze_early=options.freeze == "early",
        mine_hard_negatives=options.mine_hard_negatives,
    )


def _fill_settings(settings: TrainingSettings, options: TrainingOptions) -> TrainingSettings:
    asked: dict[str, Any] = {
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    return replace(settings, **{name: value for name, value in asked.items() if value is not None})
