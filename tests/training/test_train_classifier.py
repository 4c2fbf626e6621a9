from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jobs.errors import PermanentError
from jobs.models.classifier import load_classifier, read_categories
from jobs.models.device import choose_device
from jobs.models.preprocessing import Preprocessing
from jobs.training.augmentation import Augmentation
from jobs.training.blank_checkpoints import write_blank_resnet18
from jobs.training.labelled_photos import Split, load_pixels
from jobs.training.loop import TrainingSettings
from jobs.training.train_classifier import ClassifierTraining, train_classifier
from tests.pretrained import require_pretrained
from tests.shop import IMAGE_SIDE, TinyModels
from tests.training.coloured_photos import write_coloured_photos

SETTINGS = TrainingSettings(epochs=6, batch_size=8, learning_rate=1e-3)
HEAD_ALONE = ClassifierTraining("backbone", SETTINGS)
EVERYTHING = ClassifierTraining("nothing", replace(SETTINGS, batch_size=16), Augmentation(smallest_crop=0.9))


def predict_categories(checkpoint: Path, split: Split) -> list[str]:
    classifier = load_classifier(checkpoint, choose_device("cpu", "fp32"))
    pixels = load_pixels(split.test, classifier.preprocessing.geometry, threads=1)
    return [classifier.categories[index] for index in classifier.predict(pixels).argmax(1)]


def find_changed_weights(base: Path, output: Path) -> set[str]:
    before, after = (load_file(folder / "model.safetensors") for folder in (base, output))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_coloured_photos(tmp_path / "photos", ["red", "blue", "green"], train=8, test=4)


def test_with_a_frozen_backbone_only_the_head_changes(tiny_models: TinyModels, split: Split, tmp_path: Path) -> None:
    base, output = tmp_path / "base", tmp_path / "output"
    write_blank_resnet18(base, IMAGE_SIDE, ["1", "2", "3"])
    metrics = train_classifier(base, split, HEAD_ALONE, output)
    assert find_changed_weights(base, output) == {"classifier.1.weight", "classifier.1.bias"}
    assert metrics == {"test_photos": 12, "accuracy": 1.0, "top_3_accuracy": 1.0}
    assert predict_categories(output, split) == [photo.category for photo in split.test]


def test_fine_tuning_learns_to_tell_two_colours(split: Split, tmp_path: Path) -> None:
    base, output = tmp_path / "base", tmp_path / "output"
    write_blank_resnet18(base, IMAGE_SIDE, ["1", "2"])
    two = write_coloured_photos(tmp_path / "two", ["yellow", "black"], train=16, test=6)
    metrics = train_classifier(base, two, EVERYTHING, output)
    assert metrics["accuracy"] == 1.0
    assert predict_categories(output, two) == [photo.category for photo in two.test]
    assert "resnet.embedder.embedder.convolution.weight" in find_changed_weights(base, output)


def test_the_order_of_the_classes_is_recorded(tiny_models: TinyModels, split: Split, tmp_path: Path) -> None:
    train_classifier(tiny_models.classifier, split, HEAD_ALONE, tmp_path / "output")
    assert read_categories(tmp_path / "output") == ("blue", "green", "red")


def test_the_preprocessing_travels_with_the_checkpoint(tiny_models: TinyModels, split: Split, tmp_path: Path) -> None:
    train_classifier(tiny_models.classifier, split, HEAD_ALONE, tmp_path / "output")
    before, after = (Preprocessing.from_checkpoint(folder) for folder in (tiny_models.classifier, tmp_path / "output"))
    assert before == after


def test_a_timm_backbone_gets_a_new_head(split: Split, tmp_path: Path) -> None:
    base = require_pretrained()
    metrics = train_classifier(base, split, HEAD_ALONE, tmp_path / "output")
    assert metrics["accuracy"] == 1.0
    assert predict_categories(tmp_path / "output", split) == [photo.category for photo in split.test]
    assert Preprocessing.from_checkpoint(tmp_path / "output") == Preprocessing.from_checkpoint(base)


def test_an_encoder_may_be_the_backbone(tiny_models: TinyModels, split: Split, tmp_path: Path) -> None:
    train_classifier(tiny_models.encoder, split, HEAD_ALONE, tmp_path / "output")
    assert predict_categories(tmp_path / "output", split) == [photo.category for photo in split.test]


def test_training_twice_gives_the_same_model(tiny_models: TinyModels, split: Split, tmp_path: Path) -> None:
    for name in ("one", "other"):
        train_classifier(tiny_models.classifier, split, HEAD_ALONE, tmp_path / name)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other"))
    np.testing.assert_allclose(one["classifier.1.weight"], other["classifier.1.weight"], atol=1e-5)


def test_a_category_that_was_held_back_whole_is_known_but_counts_as_wrong(
    tiny_models: TinyModels, split: Split, tmp_path: Path
) -> None:
    without_red = Split(tuple(photo for photo in split.train if photo.category != "red"), split.test)
    metrics = train_classifier(tiny_models.classifier, without_red, HEAD_ALONE, tmp_path / "output")
    assert read_categories(tmp_path / "output") == ("blue", "green", "red")
    assert metrics["accuracy"] == pytest.approx(2 / 3, abs=1e-3)


def test_fine_tuning_goes_on_without_a_category_that_was_held_back_whole(split: Split, tmp_path: Path) -> None:
    write_blank_resnet18(tmp_path / "base", IMAGE_SIDE, ["1", "2", "3"])
    without_red = Split(tuple(photo for photo in split.train if photo.category != "red"), split.test)
    once = replace(EVERYTHING, settings=replace(SETTINGS, epochs=1))
    assert train_classifier(tmp_path / "base", without_red, once, tmp_path / "output")["test_photos"] == 12


def test_one_category_is_not_enough(tiny_models: TinyModels, tmp_path: Path) -> None:
    split = write_coloured_photos(tmp_path / "photos", ["red"], train=2, test=1)
    with pytest.raises(PermanentError, match=r"at least two categories.*red"):
        train_classifier(tiny_models.classifier, split, HEAD_ALONE, tmp_path / "output")


def test_a_base_that_is_no_model_is_refused_in_one_line(split: Split, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(PermanentError, match="holds no image classifier") as caught:
        train_classifier(tmp_path / "base", split, HEAD_ALONE, tmp_path / "output")
    assert "\n" not in str(caught.value)
