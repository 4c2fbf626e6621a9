from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fixtures.candidates import LabeledSet, make_labeled_set
from fixtures.real_data import require_pretrained
from fixtures.recorded_progress import RecordedProgress
from fixtures.shop import CATEGORIES, Shop, TinyModels
from fixtures.small_classifier import write_small_classifier
from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_weights
from jobs.models.classifier import load_classifier, read_categories, read_temperature
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.evaluate.artifact_check import read_reference_outputs
from jobs.retrain.train.context import TrainedModel, TrainingContext
from jobs.retrain.train.requests import Augmentation, ClassifierTraining, Freeze, Hyperparameters
from jobs.retrain.train.train_classifier import save_classifier, train_classifier
from jobs.retrain.train.whole_images import read_whole_images
from tests.retrain.train.training_contexts import EXACT, change_rows, measure_accuracy, open_context

HYPERPARAMETERS = Hyperparameters(epochs=6, batch_size=16, learning_rate=1e-3, patience=6)
MILD = Augmentation(smallest_crop=0.9, rotation_degrees=0, color_jitter=0)


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    return make_labeled_set(train=12, validation=4, test=6)


@pytest.fixture
def context(shop: Shop, labeled: LabeledSet, tmp_path: Path) -> TrainingContext:
    return open_context(shop, labeled, tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_small_classifier(tmp_path / "base", CATEGORIES)
    return tmp_path / "base"


def make_training(base: Path, freeze: Freeze, epochs: int = HYPERPARAMETERS.epochs) -> ClassifierTraining:
    return ClassifierTraining(base, freeze, replace(HYPERPARAMETERS, epochs=epochs), MILD)


def train_and_save(
    request: ClassifierTraining, context: TrainingContext, folder: Path
) -> tuple[TrainedModel, dict[str, float]]:
    trained = train_classifier(request, context)
    return trained, save_classifier(trained.model, request, context, folder)


def read_expected_preprocessing(freeze: Freeze, base: Path) -> Preprocessing:
    return Preprocessing.from_checkpoint(base) if freeze == "backbone" else read_whole_images(base)


def find_changed_weights(base: Path, output: Path) -> set[str]:
    before, after = (load_file(folder / "model.safetensors") for folder in (base, output))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_only_the_head_changes_if_the_backbone_is_frozen(context: TrainingContext, base: Path, tmp_path: Path) -> None:
    recorded = RecordedProgress()
    context = replace(context, progress=recorded)
    trained, metrics = train_and_save(make_training(base, "backbone"), context, tmp_path / "output")
    assert recorded.stages() == ["computing features", "fitting the head", "scoring images"]
    assert find_changed_weights(base, tmp_path / "output") == {"classifier.1.weight", "classifier.1.bias"}
    assert trained.history == ()
    assert metrics["validation_accuracy"] == metrics["validation_top_3_accuracy"] == 1.0
    assert measure_accuracy(tmp_path / "output", context, "test") == 1.0


def test_a_head_is_fitted_on_train_images_only(shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    """With wrong labels in the other splits, the head still fits the train split."""
    rotated = dict(zip(CATEGORIES, [*CATEGORIES[1:], CATEGORIES[0]], strict=True))
    others = [
        replace(row, category=rotated[row.category]) if row.split != "train" else row for row in labeled.snapshot.rows
    ]
    context = open_context(shop, change_rows(labeled, others), tmp_path)
    _, metrics = train_and_save(make_training(base, "backbone"), context, tmp_path / "output")
    assert metrics["validation_accuracy"] == 0
    assert measure_accuracy(tmp_path / "output", context, "train") == 1.0


def test_fine_tuning_learns_and_changes_every_layer(context: TrainingContext, base: Path, tmp_path: Path) -> None:
    trained, metrics = train_and_save(make_training(base, "nothing"), context, tmp_path / "output")
    assert metrics["validation_accuracy"] > 0.9
    assert metrics["validation_images"] == 16
    assert measure_accuracy(tmp_path / "output", context, "test") > 0.9
    assert find_changed_weights(base, tmp_path / "output") == set(load_file(base / "model.safetensors"))
    assert [record.epoch for record in trained.history] == [1, 2, 3, 4, 5, 6]
    assert trained.history[-1].validation_loss < trained.history[0].validation_loss


def test_frozen_early_layers_keep_their_weights_and_their_statistics(
    context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    train_and_save(make_training(base, "early", epochs=1), context, tmp_path / "output")
    changed = find_changed_weights(base, tmp_path / "output")
    early = ("resnet.embedder", "resnet.encoder.stages.0", "resnet.encoder.stages.1")
    assert not [name for name in changed if name.startswith(early)]
    assert "resnet.encoder.stages.3.layers.0.layer.1.normalization.running_mean" in changed
    assert "classifier.1.weight" in changed


def test_the_best_epoch_is_saved_and_not_the_last(context: TrainingContext, base: Path, tmp_path: Path) -> None:
    """The validation loss of the saved model is that of the best epoch."""
    trained, _ = train_and_save(make_training(base, "nothing"), context, tmp_path / "output")
    best = min(record.validation_loss for record in trained.history)
    classifier = load_classifier(tmp_path / "output", EXACT)
    rows = context.snapshot.part("validation")
    pixels = context.load_shards(rows, classifier.preprocessing.geometry).decode(range(len(rows)))
    labels = torch.tensor([classifier.categories.index(row.category) for row in rows])
    with torch.inference_mode():
        logits = classifier.model(pixel_values=classifier.preprocessing.normalize(pixels, torch.float32)).logits
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(best, rel=1e-3)


def test_a_rare_category_weighs_more(shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    rows = [row for row in labeled.snapshot.rows if row.split != "train" or row.category != "hat"]
    rare = [row for row in labeled.snapshot.part("train") if row.category == "hat"][:2]
    context = open_context(shop, change_rows(labeled, [*rows, *rare]), tmp_path)
    train_and_save(make_training(base, "nothing", epochs=8), context, tmp_path / "output")
    assert measure_accuracy(tmp_path / "output", context, "test") > 0.9


@pytest.mark.parametrize("freeze", ["backbone", "early", "nothing"])
def test_the_checkpoint_contains_everything_to_serve_it(
    freeze: Freeze, context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    """Categories, preprocessing, temperature, and reference outputs that the stored model reproduces."""
    output = tmp_path / "output"
    _, metrics = train_and_save(make_training(base, freeze, epochs=1), context, output)
    assert read_categories(output) == context.snapshot.categories
    assert Preprocessing.from_checkpoint(output) == read_expected_preprocessing(freeze, base)
    assert read_temperature(output) == pytest.approx(metrics["temperature"], abs=1e-3)

    reference = read_reference_outputs(output)
    assert reference is not None
    assert reference.kind == "classifier"
    rows = context.snapshot.part("validation")
    assert list(reference.outputs) == [row.content_hash for row in rows]
    classifier = load_classifier(output, EXACT)
    predictions = classifier.predict(context.images.load_pixels(rows, classifier.preprocessing.geometry))
    for row, prediction in zip(rows, predictions.tolist(), strict=True):
        expected = reference.outputs[row.content_hash]
        assert isinstance(expected, dict)
        assert [expected[name] for name in classifier.categories] == pytest.approx(prediction, abs=1e-5)


@pytest.mark.parametrize("freeze", ["backbone", "early", "nothing"])
def test_training_twice_gives_the_same_weights(
    freeze: Freeze, context: TrainingContext, base: Path, tmp_path: Path
) -> None:
    request = ClassifierTraining(base, freeze, replace(HYPERPARAMETERS, epochs=2))
    for name in ("one", "other"):
        train_and_save(request, replace(context, folder=tmp_path / f"checkpoints-{name}"), tmp_path / name)
    assert hash_weights(tmp_path / "one") == hash_weights(tmp_path / "other")


def test_another_seed_gives_other_weights(context: TrainingContext, base: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        request = ClassifierTraining(base, "nothing", replace(HYPERPARAMETERS, epochs=1, seed=seed))
        train_and_save(request, replace(context, folder=tmp_path / f"checkpoints-{seed}"), tmp_path / str(seed))
    assert hash_weights(tmp_path / "1") != hash_weights(tmp_path / "2")


@pytest.mark.parametrize(("freeze", "epochs"), [("backbone", 0), ("early", 5)])
def test_a_timm_backbone_gets_a_new_head(freeze: Freeze, epochs: int, context: TrainingContext, tmp_path: Path) -> None:
    base = require_pretrained()
    train_and_save(make_training(base, freeze, epochs), context, tmp_path / "output")
    assert measure_accuracy(tmp_path / "output", context, "test") > 0.9
    assert Preprocessing.from_checkpoint(tmp_path / "output") == read_expected_preprocessing(freeze, base)


def test_an_encoder_can_be_the_backbone(context: TrainingContext, tiny_models: TinyModels, tmp_path: Path) -> None:
    train_and_save(make_training(tiny_models.encoder, "backbone"), context, tmp_path / "output")
    assert measure_accuracy(tmp_path / "output", context, "test") > 0.9


def test_a_category_that_occurs_only_in_test_is_known(
    shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path
) -> None:
    rows = [row for row in labeled.snapshot.rows if row.split == "test" or row.category != "hat"]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    train_and_save(make_training(base, "nothing", epochs=1), context, tmp_path / "output")
    assert "hat" in read_categories(tmp_path / "output")


def test_one_category_is_not_enough(shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    rows = [row for row in labeled.snapshot.rows if row.category == "hat"]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    with pytest.raises(PermanentError, match=r"at least two categories.*hat"):
        train_classifier(make_training(base, "backbone"), context)


def test_a_snapshot_without_validation_images_is_refused(
    shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path
) -> None:
    rows = [row for row in labeled.snapshot.rows if row.split != "validation"]
    context = open_context(shop, change_rows(labeled, rows), tmp_path)
    with pytest.raises(PermanentError, match="has no validation images: label more"):
        train_classifier(make_training(base, "backbone"), context)


def test_a_base_that_is_not_a_model_is_refused_in_one_line(context: TrainingContext, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PermanentError, match="cannot be loaded with AutoModelForImageClassification") as caught:
        train_classifier(make_training(tmp_path / "empty", "backbone"), context)
    assert "\n" not in str(caught.value)


def test_a_learning_rate_that_diverges_is_refused(context: TrainingContext, base: Path) -> None:
    with pytest.raises(PermanentError, match="loss is NaN or infinite"):
        train_classifier(
            ClassifierTraining(base, "nothing", replace(HYPERPARAMETERS, learning_rate=1e30, warmup_share=0)), context
        )
