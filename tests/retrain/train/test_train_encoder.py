import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from demo.blank_checkpoints import write_blank_dual_encoder
from fixtures.candidates import LabeledSet, make_labeled_set
from fixtures.shop import CATEGORIES, IMAGE_SIDE, Shop, TinyModels
from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_weights
from jobs.models.encoder import load_image_encoder, load_text_encoder
from jobs.retrain.evaluate.artifact_check import read_reference_outputs
from jobs.retrain.train.context import TrainedModel, TrainingContext
from jobs.retrain.train.requests import Augmentation, EncoderTraining, Hyperparameters
from jobs.retrain.train.train_encoder import contrastive_loss, save_encoder, train_encoder
from tests.retrain.train.training_contexts import EXACT, change_rows, open_context, write_small_clip

MILD = Augmentation(smallest_crop=0.9, rotation_degrees=0, color_jitter=0)
HYPERPARAMETERS = Hyperparameters(epochs=20, batch_size=16, learning_rate=1e-3, patience=20)


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    """Images whose text names only their category."""
    labeled = make_labeled_set(train=10, validation=3, test=3)
    return change_rows(labeled, [replace(row, full_text=f"a {row.category}") for row in labeled.snapshot.rows])


@pytest.fixture
def context(shop: Shop, labeled: LabeledSet, tmp_path: Path) -> TrainingContext:
    return open_context(shop, labeled, tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_small_clip(tmp_path / "base", CATEGORIES)
    return tmp_path / "base"


def train_and_save(
    request: EncoderTraining, context: TrainingContext, folder: Path
) -> tuple[TrainedModel, dict[str, float]]:
    trained = train_encoder(request, context)
    return trained, save_encoder(trained.model, request, context, folder)


def measure_accuracy(folder: Path, context: TrainingContext, words: str) -> float:
    """Return the share of test images whose nearest name is that of their category."""
    images, texts = load_image_encoder(folder, EXACT), load_text_encoder(folder, EXACT)
    rows = context.snapshot.part("test")
    vectors = images.predict(context.images.load_pixels(rows, images.preprocessing.geometry)).numpy()
    names = texts.embed([words.format(category) for category in CATEGORIES])
    best = (vectors @ names.T).argmax(1)
    return sum(CATEGORIES[index] == row.category for index, row in zip(best, rows, strict=True)) / len(rows)


def test_an_image_tower_of_another_library_is_trained(context: TrainingContext, tmp_path: Path) -> None:
    """The kind that the sample catalog starts from: a timm ResNet with the text tower of CLIP."""
    torch.manual_seed(0)
    write_blank_dual_encoder(tmp_path / "base", IMAGE_SIDE, dimensions=64, texts=CATEGORIES)
    request = EncoderTraining(tmp_path / "base", HYPERPARAMETERS, MILD, category_weight=1.0)
    train_and_save(request, context, tmp_path / "output")
    assert measure_accuracy(tmp_path / "output", context, "a {}") > 0.9
    reference = read_reference_outputs(tmp_path / "output")
    assert reference is not None
    rows = context.snapshot.part("validation")
    images = load_image_encoder(tmp_path / "output", EXACT)
    vectors = images.predict(context.images.load_pixels(rows, images.preprocessing.geometry))
    for row, vector in zip(rows, vectors.tolist(), strict=True):
        assert reference.outputs[row.content_hash] == pytest.approx(vector, abs=1e-5)


def make_vectors(count: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def compute_expected_loss(images: torch.Tensor, texts: torch.Tensor, scale: float, tokens: list[list[int]]) -> float:
    """Compute the loss one image and one text at a time."""
    count = len(tokens)
    similarity = [[scale * float(images[row] @ texts[column]) for column in range(count)] for row in range(count)]

    def compute_term(similarities: list[float], position: int) -> float:
        total = sum(math.exp(value) for value in similarities)
        right = [column for column in range(count) if tokens[column] == tokens[position]]
        return -sum(math.log(math.exp(similarities[column]) / total) for column in right) / len(right)

    by_image = [compute_term(similarity[row], row) for row in range(count)]
    by_text = [compute_term([row[column] for row in similarity], column) for column in range(count)]
    return (sum(by_image) + sum(by_text)) / (2 * count)


@pytest.mark.parametrize("texts", [[1, 2, 3, 4, 5], [1, 2, 1, 3, 1], [1, 1, 2, 2, 2], [7, 7, 7, 7, 7]])
def test_the_loss_follows_the_formula(texts: list[int]) -> None:
    tokens = [[0, text, 9] for text in texts]
    images, text_vectors = make_vectors(5, 1), make_vectors(5, 2)
    loss = contrastive_loss(images, text_vectors, torch.tensor(3.0), torch.tensor(tokens))
    assert loss.item() == pytest.approx(compute_expected_loss(images, text_vectors, 3.0, tokens), rel=1e-5)


def test_the_loss_is_that_of_clip_if_all_texts_differ() -> None:
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


@pytest.mark.parametrize("mine_hard_negatives", [False, True])
def test_training_aligns_images_with_their_texts(
    mine_hard_negatives: bool, context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    request = EncoderTraining(base, HYPERPARAMETERS, MILD, mine_hard_negatives=mine_hard_negatives)
    trained, metrics = train_and_save(request, context, tmp_path / "after")
    _, before = train_and_save(
        replace(request, hyperparameters=replace(HYPERPARAMETERS, epochs=0)), context, tmp_path / "before"
    )
    assert metrics["validation_images"] == 12
    assert metrics["train_images"] == 40
    assert metrics["validation_loss"] < before["validation_loss"]
    assert metrics["validation_in_batch_accuracy"] == 1.0
    assert measure_accuracy(tmp_path / "after", context, "a {}") > 0.9
    assert trained.history[-1].validation_loss < trained.history[0].validation_loss
    assert trained.history[-1].validation_accuracy == 1.0


@pytest.mark.parametrize("category_weight", [0.0, 1.0])
def test_category_names_are_learned_only_with_a_category_weight(
    category_weight: float, shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path
) -> None:
    rows = [replace(row, full_text="a garment") for row in labeled.snapshot.rows]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    request = EncoderTraining(base, HYPERPARAMETERS, MILD, category_weight=category_weight)
    train_and_save(request, context, tmp_path / "after")
    assert (measure_accuracy(tmp_path / "after", context, "{}") > 0.9) == bool(category_weight)


def test_images_without_a_text_are_left_out(shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    rows = [replace(row, full_text="" if row.category == "hat" else row.full_text) for row in labeled.snapshot.rows]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    request = EncoderTraining(base, replace(HYPERPARAMETERS, epochs=1), MILD)
    _, metrics = train_and_save(request, context, tmp_path / "after")
    assert (metrics["train_images"], metrics["validation_images"]) == (30, 9)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_texts_is_refused(
    split: str, shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path
) -> None:
    rows = [replace(row, full_text="" if row.split == split else row.full_text) for row in labeled.snapshot.rows]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    with pytest.raises(PermanentError, match=f"has no {split} images with a text"):
        train_encoder(EncoderTraining(base, HYPERPARAMETERS), context)


def test_frozen_early_layers_keep_their_weights_in_both_towers(
    context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    request = EncoderTraining(base, replace(HYPERPARAMETERS, epochs=1), MILD, freeze_early=True)
    train_and_save(request, context, tmp_path / "after")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "after"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for tower in ("vision_model", "text_model"):
        assert not [name for name in changed if name.startswith(f"{tower}.embeddings")]
        assert not [name for name in changed if name.startswith(f"{tower}.encoder.layers.0.self_attn")]
        assert [name for name in changed if name.startswith(f"{tower}.encoder.layers.1.mlp")]
    assert {"visual_projection.weight", "text_projection.weight", "logit_scale"} <= changed


def test_training_twice_gives_the_same_weights(context: TrainingContext, base: Path, tmp_path: Path) -> None:
    request = EncoderTraining(base, replace(HYPERPARAMETERS, epochs=2), mine_hard_negatives=True, category_weight=1.0)
    for name in ("one", "other"):
        train_and_save(request, replace(context, folder=tmp_path / f"checkpoints-{name}"), tmp_path / name)
    assert hash_weights(tmp_path / "one") == hash_weights(tmp_path / "other")


def test_zero_epochs_keep_the_weights_and_need_no_texts(
    shop: Shop, labeled: LabeledSet, tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows = [replace(row, full_text="") for row in labeled.snapshot.rows]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    request = EncoderTraining(tiny_models.encoder, replace(HYPERPARAMETERS, epochs=0))
    _, metrics = train_and_save(request, context, tmp_path / "output")
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_models.encoder, tmp_path / "output"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert metrics == {}


def test_the_stored_model_reproduces_the_reference_outputs(
    context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    train_and_save(EncoderTraining(base, replace(HYPERPARAMETERS, epochs=1)), context, tmp_path / "output")
    reference = read_reference_outputs(tmp_path / "output")
    assert reference is not None
    assert reference.kind == "encoder"
    rows = context.snapshot.part("validation")
    assert list(reference.outputs) == [row.content_hash for row in rows]
    encoder = load_image_encoder(tmp_path / "output", EXACT)
    vectors = encoder.predict(context.images.load_pixels(rows, encoder.preprocessing.geometry))
    torch.testing.assert_close(torch.tensor(list(reference.outputs.values())), vectors, atol=1e-5, rtol=0)
    assert load_text_encoder(tmp_path / "output", EXACT).embed(["a hat"]).shape == (1, 64)


def test_a_classifier_is_refused(context: TrainingContext, tiny_models: TinyModels) -> None:
    with pytest.raises(PermanentError, match="no image and text features"):
        train_encoder(EncoderTraining(tiny_models.classifier, HYPERPARAMETERS), context)
