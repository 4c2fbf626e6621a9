import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from jobs.errors import PermanentError
from jobs.models.device import choose_device
from jobs.models.encoder import load_image_encoder, load_text_encoder
from jobs.training.augmentation import Augmentation
from jobs.training.blank_checkpoints import write_blank_clip
from jobs.training.labelled_photos import Split, load_pixels
from jobs.training.loop import TrainingSettings
from jobs.training.train_encoder import EncoderTraining, contrastive_loss, train_encoder
from tests.shop import TinyModels
from tests.training.coloured_photos import COLOURS, write_coloured_photos

MILD = Augmentation(smallest_crop=0.9, rotation_degrees=0, colour_jitter=0)
NO_TRAINING = EncoderTraining(TrainingSettings(epochs=0, batch_size=8, learning_rate=0))
TRAINING = EncoderTraining(TrainingSettings(epochs=15, batch_size=24, learning_rate=2e-3), MILD)


def make_vectors(count: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def sum_up_loss(images: torch.Tensor, texts: torch.Tensor, scale: float, tokens: list[list[int]]) -> float:
    """The loss written out, one photo and one text after the other."""
    count = len(tokens)
    similarity = [[scale * float(images[row] @ texts[column]) for column in range(count)] for row in range(count)]

    def ask(similarities: list[float], position: int) -> float:
        total = sum(math.exp(value) for value in similarities)
        right = [column for column in range(count) if tokens[column] == tokens[position]]
        return -sum(math.log(math.exp(similarities[column]) / total) for column in right) / len(right)

    by_image = [ask(similarity[row], row) for row in range(count)]
    by_text = [ask([row[column] for row in similarity], column) for column in range(count)]
    return (sum(by_image) + sum(by_text)) / (2 * count)


@pytest.mark.parametrize("texts", [[1, 2, 3, 4, 5], [1, 2, 1, 3, 1], [1, 1, 2, 2, 2], [7, 7, 7, 7, 7]])
def test_the_loss_is_that_of_the_formula(texts: list[int]) -> None:
    tokens = [[0, text, 9] for text in texts]
    images, text_vectors = make_vectors(5, 1), make_vectors(5, 2)
    loss = contrastive_loss(images, text_vectors, torch.tensor(3.0), torch.tensor(tokens))
    assert loss.item() == pytest.approx(sum_up_loss(images, text_vectors, 3.0, tokens), rel=1e-5)


def test_the_usual_loss_of_clip_is_met_where_all_texts_differ() -> None:
    images, texts, tokens = make_vectors(6, 1), make_vectors(6, 2), torch.arange(6)[:, None]
    logits, targets = 10 * images @ texts.T, torch.arange(6)
    expected = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.tensor(10.0), tokens), expected)


def test_an_equal_text_is_not_a_negative() -> None:
    vectors = torch.eye(16)[[0, 0, 1, 2]].requires_grad_()
    tokens = torch.tensor([[5, 6], [5, 6], [5, 7], [8, 6]])
    contrastive_loss(vectors, vectors.detach(), torch.tensor(100.0), tokens).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert vectors.grad.abs().max() < 1e-5


def test_training_raises_recall(tmp_path: Path) -> None:
    split = write_coloured_photos(tmp_path / "photos", list(COLOURS), train=8, test=3)
    base = tmp_path / "base"
    texts = [photo.text for photo in split.train]
    write_blank_clip(base, image_side=32, patch_side=16, width=64, dimensions=64, layers=2, texts=texts)
    before = train_encoder(base, split, NO_TRAINING, tmp_path / "before")
    after = train_encoder(base, split, TRAINING, tmp_path / "after")
    assert before["test_photos"] == after["test_photos"] == 18
    assert before["recall_at_1"] < 0.6
    assert after["recall_at_1"] > 0.9

    device = choose_device("cpu", "fp32")
    images, texts_encoder = (
        load_image_encoder(tmp_path / "after", device),
        load_text_encoder(tmp_path / "after", device),
    )
    vectors = images.predict(load_pixels(split.test, images.preprocessing.geometry, threads=1)).numpy()
    for colour in COLOURS:
        best = (vectors @ texts_encoder.embed([f"a {colour} shirt"])[0]).argmax()
        assert split.test[best].category == colour


@pytest.mark.parametrize("category_weight", [0.0, 1.0])
def test_categories_are_learned_by_their_names_where_texts_say_nothing(category_weight: float, tmp_path: Path) -> None:
    named = write_coloured_photos(tmp_path / "photos", list(COLOURS), train=8, test=3)
    split = Split(*(tuple(replace(photo, text="a shirt") for photo in part) for part in (named.train, named.test)))
    write_blank_clip(
        tmp_path / "base", image_side=32, patch_side=16, width=64, dimensions=64, layers=2, texts=list(COLOURS)
    )
    train_encoder(tmp_path / "base", split, replace(TRAINING, category_weight=category_weight), tmp_path / "after")

    device = choose_device("cpu", "fp32")
    images = load_image_encoder(tmp_path / "after", device)
    vectors = images.predict(load_pixels(split.test, images.preprocessing.geometry, threads=1)).numpy()
    names = load_text_encoder(tmp_path / "after", device).embed(list(COLOURS))
    right = [
        list(COLOURS)[best] == photo.category
        for best, photo in zip((vectors @ names.T).argmax(1), split.test, strict=True)
    ]
    assert (sum(right) / len(right) > 0.9) == bool(category_weight)


def test_no_epochs_keep_the_weights(tiny_models: TinyModels, tmp_path: Path) -> None:
    split = write_coloured_photos(tmp_path / "photos", ["red", "blue"], train=1, test=2)
    metrics = train_encoder(tiny_models.encoder, split, NO_TRAINING, tmp_path / "output")
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_models.encoder, tmp_path / "output"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # With two photos of two colours, one of the best five is always right.
    assert metrics.keys() == {"test_photos", "recall_at_1", "recall_at_5", "recall_at_10"}
    assert metrics["recall_at_5"] == metrics["recall_at_10"] == 1


def test_a_classifier_is_refused(tiny_models: TinyModels, tmp_path: Path) -> None:
    split = write_coloured_photos(tmp_path / "photos", ["red", "blue"], train=1, test=1)
    with pytest.raises(PermanentError, match="no image and text features"):
        train_encoder(tiny_models.classifier, split, NO_TRAINING, tmp_path / "output")
