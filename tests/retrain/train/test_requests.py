from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.train.requests import ClassifierTraining, EncoderTraining, TrainingOptions, make_request

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
