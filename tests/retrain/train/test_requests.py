from pathlib import Path

import pytest

from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError
from jobs.retrain.train.requests import (
    Augmentation,
    ClassifierTraining,
    EncoderTraining,
    TrainingOptions,
    make_request,
    needs_all_processes,
)

BASE = Path("base")


def test_an_encoder_has_a_low_learning_rate_by_default() -> None:
    request = make_request("encoder", BASE, TrainingOptions())
    assert isinstance(request, EncoderTraining)
    assert (request.kind, request.base) == ("encoder", BASE)
    hyperparameters = request.hyperparameters
    assert (hyperparameters.epochs, hyperparameters.batch_size, hyperparameters.learning_rate) == (5, 32, 5e-6)
    assert not request.freeze_early
    assert not request.mine_hard_negatives
    assert request.category_weight == 0


def test_options_override_defaults() -> None:
    options = TrainingOptions(epochs=2, learning_rate=1e-4, batch_size=8, seed=3, freeze="early")
    classifier = make_request("classifier", BASE, options)
    assert isinstance(classifier, ClassifierTraining)
    given = classifier.hyperparameters
    assert (given.epochs, given.learning_rate, given.batch_size, given.seed) == (2, 1e-4, 8, 3)
    assert classifier.freeze == "early"
    encoder = make_request("encoder", BASE, TrainingOptions(epochs=0, freeze="early", mine_hard_negatives=True))
    assert isinstance(encoder, EncoderTraining)
    assert (encoder.hyperparameters.epochs, encoder.freeze_early, encoder.mine_hard_negatives) == (0, True, True)


def test_from_scratch_has_a_high_learning_rate_and_a_loss_on_category_names() -> None:
    classifier = make_request("classifier", BASE, TrainingOptions(from_scratch=True))
    encoder = make_request("encoder", BASE, TrainingOptions(from_scratch=True))
    assert isinstance(classifier, ClassifierTraining)
    assert isinstance(encoder, EncoderTraining)
    assert (classifier.hyperparameters.learning_rate, encoder.hyperparameters.learning_rate) == (3e-3, 1.5e-3)
    assert (classifier.freeze, encoder.category_weight) == ("nothing", 0.7)
    assert classifier.augmentation.rotation_degrees == encoder.augmentation.color_jitter == 0


def test_unsupported_options_are_refused() -> None:
    with pytest.raises(PermanentError, match="an encoder has no head"):
        make_request("encoder", BASE, TrainingOptions(freeze="backbone"))
    with pytest.raises(PermanentError, match="hard negatives are only for encoders"):
        make_request("classifier", BASE, TrainingOptions(mine_hard_negatives=True))
    with pytest.raises(PermanentError, match="at least 1 epoch"):
        make_request("classifier", BASE, TrainingOptions(epochs=0))


def test_a_gpu_trains_all_layers_for_long_with_strong_augmentation() -> None:
    classifier = make_request("classifier", BASE, TrainingOptions(), on_gpu=True)
    assert isinstance(classifier, ClassifierTraining)
    assert (classifier.freeze, classifier.augmentation) == ("nothing", Augmentation(0.4, 10, 0.3, 0.3))
    hyperparameters = classifier.hyperparameters
    assert (hyperparameters.epochs, hyperparameters.learning_rate, hyperparameters.budget_minutes) == (15, 1e-3, None)


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_cpu_has_a_time_budget_unless_epochs_are_set(kind: ModelKind) -> None:
    budgets = {
        name: make_request(kind, BASE, options).hyperparameters.budget_minutes
        for name, options in (
            ("default", TrainingOptions()),
            ("epochs", TrainingOptions(epochs=3)),
            ("budget", TrainingOptions(budget_minutes=5)),
            ("both", TrainingOptions(epochs=3, budget_minutes=5)),
            ("scratch", TrainingOptions(from_scratch=True)),
        )
    }
    assert budgets == {"default": 60, "epochs": None, "budget": 5, "both": 5, "scratch": None}


@pytest.mark.parametrize(("images", "size"), [(10, 64), (5119, 64), (5120, 128), (10_240, 256), (1_000_000, 256)])
def test_batches_grow_with_the_data_on_a_gpu(images: int, size: int) -> None:
    request = make_request("classifier", BASE, TrainingOptions(), on_gpu=True)
    assert request.hyperparameters.fit_batch_size(images).batch_size == size
    for fixed in (TrainingOptions(batch_size=64), TrainingOptions(from_scratch=True)):
        kept = make_request("classifier", BASE, fixed, on_gpu=True).hyperparameters
        assert kept.fit_batch_size(images).batch_size == kept.batch_size


def test_only_epochs_need_all_processes() -> None:
    assert needs_all_processes(make_request("classifier", BASE, TrainingOptions()))
    assert not needs_all_processes(make_request("classifier", BASE, TrainingOptions(freeze="backbone")))
    assert needs_all_processes(make_request("encoder", BASE, TrainingOptions()))
    assert not needs_all_processes(make_request("encoder", BASE, TrainingOptions(epochs=0)))
