"""The training loop alone, with a one-layer model that learns whether an image is bright."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.models.device import choose_device
from jobs.retrain.snapshot.image_shards import ImageShards
from jobs.retrain.train.loop import BatchResult, LoopResult, TrainingTask, count_workers, train
from jobs.retrain.train.requests import Augmentation, Hyperparameters
from jobs.retrain.train.training_images import AugmentedImages, Images
from tests.retrain.train.training_contexts import store_images

HYPERPARAMETERS = Hyperparameters(epochs=8, batch_size=8, learning_rate=2e-3, warmup_share=0, patience=2)
LABELS = torch.arange(40) % 2
NOISE = torch.randint(0, 60, (40, 3, 8, 8), generator=torch.Generator().manual_seed(1))
PIXELS = (NOISE + 140 * LABELS[:, None, None, None]).to(torch.uint8)


def compute_result(model: nn.Module, batch: dict[str, torch.Tensor]) -> BatchResult:
    logits = model(batch["pixels"].flatten(1).float() / 255 - 0.4)
    return BatchResult(functional.cross_entropy(logits, batch["labels"]), logits.argmax(1) == batch["labels"])


def make_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(3 * 8 * 8, 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ImageShards:
    return store_images(tmp_path_factory.mktemp("images") / "shards", PIXELS)


def make_task(shards: ImageShards, validation_labels: torch.Tensor) -> TrainingTask:
    images = AugmentedImages(shards, {"labels": LABELS}, Augmentation(), PIXELS.shape[-1], seed=1)
    return TrainingTask("brightness", images, Images(shards, {"labels": validation_labels}), compute_result)


def train_on_cpu(
    folder: Path, task: TrainingTask, hyperparameters: Hyperparameters = HYPERPARAMETERS
) -> tuple[LoopResult, nn.Module]:
    model = make_model()
    return train(model, task, hyperparameters, choose_device("cpu", "fp32"), folder), model


def list_checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def test_a_model_learns_and_every_epoch_is_recorded(shards: ImageShards, tmp_path: Path) -> None:
    trained, model = train_on_cpu(tmp_path, make_task(shards, LABELS))
    assert [record.epoch for record in trained.history] == list(range(1, 9))
    assert trained.history[-1].validation_accuracy == 1.0
    assert trained.history[-1].validation_loss < trained.history[0].validation_loss
    assert trained.history[-1].learning_rate < trained.history[1].learning_rate < HYPERPARAMETERS.learning_rate
    assert trained.images_per_second is not None
    assert trained.images_per_second > 0
    assert compute_result(model.eval(), {"pixels": shards.decode(range(40)), "labels": LABELS}).hits.all()


def test_training_stops_when_patience_is_exhausted_and_keeps_the_best_epoch(
    shards: ImageShards, tmp_path: Path
) -> None:
    """The validation labels are inverted, so every epoch makes the validation loss worse."""
    trained, model = train_on_cpu(tmp_path, make_task(shards, 1 - LABELS))
    losses = [record.validation_loss for record in trained.history]
    assert len(losses) == 3
    assert losses == sorted(losses)
    loss = compute_result(model.eval(), {"pixels": shards.decode(range(40)), "labels": 1 - LABELS}).loss.item()
    assert loss == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_a_finished_training_is_not_continued(flip: bool, shards: ImageShards, tmp_path: Path) -> None:
    """As after a kill between the last checkpoint and the upload: with patience exhausted, and with all epochs done."""
    task = make_task(shards, 1 - LABELS if flip else LABELS)
    first, model = train_on_cpu(tmp_path, task)
    checkpoints = list_checkpoints(tmp_path)
    again, same = train_on_cpu(tmp_path, task)
    assert again.history == first.history
    assert again.images_per_second is None
    assert list_checkpoints(tmp_path) == checkpoints
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))


def test_an_incomplete_checkpoint_is_ignored(shards: ImageShards, tmp_path: Path) -> None:
    whole, model = train_on_cpu(tmp_path / "whole", make_task(shards, LABELS))
    latest = list_checkpoints(tmp_path / "whole")[-1]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    cut = tmp_path / "cut" / f"checkpoint-{latest}"
    (cut / "trainer_state.json").write_text((cut / "trainer_state.json").read_text()[:100])
    (cut / "optimizer.pt").write_bytes(b"")
    again, same = train_on_cpu(tmp_path / "cut", make_task(shards, LABELS))
    assert again.history == whole.history
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))


def test_only_two_checkpoints_are_kept(shards: ImageShards, tmp_path: Path) -> None:
    train_on_cpu(tmp_path, make_task(shards, LABELS))
    assert len(list_checkpoints(tmp_path)) == 2


def test_frozen_layers_stay_in_evaluation_mode(shards: ImageShards, tmp_path: Path) -> None:
    seen = []

    def record(model: nn.Module, batch: dict[str, torch.Tensor]) -> BatchResult:
        seen.append((model.training, model[0].training))  # type: ignore[index]
        return compute_result(model, batch)

    model = nn.Sequential(nn.BatchNorm1d(3 * 8 * 8), nn.Linear(3 * 8 * 8, 2))
    task = make_task(shards, LABELS)
    frozen = TrainingTask(task.name, task.train, task.validation, record, frozen=(model[0],))
    train(model, frozen, Hyperparameters(1, 8, 1e-3), choose_device("cpu", "fp32"), tmp_path)
    assert set(seen) == {(True, False), (False, False)}


def test_the_number_of_epochs_follows_the_budget_and_is_kept(shards: ImageShards, tmp_path: Path) -> None:
    rich = replace(HYPERPARAMETERS, epochs=3, budget_minutes=60)
    poor = replace(rich, budget_minutes=1e-9)
    trained, _ = train_on_cpu(tmp_path / "poor", make_task(shards, LABELS), poor)
    assert len(trained.history) == 1
    trained, _ = train_on_cpu(tmp_path / "rich", make_task(shards, LABELS), rich)
    assert len(trained.history) == 3
    again, _ = train_on_cpu(tmp_path / "rich", make_task(shards, LABELS), poor)
    assert again.history == trained.history


def test_measuring_the_speed_does_not_change_the_training(shards: ImageShards, tmp_path: Path) -> None:
    fixed = replace(HYPERPARAMETERS, epochs=2)
    _, plain = train_on_cpu(tmp_path / "fixed", make_task(shards, LABELS), fixed)
    _, measured = train_on_cpu(tmp_path / "budget", make_task(shards, LABELS), replace(fixed, budget_minutes=60))
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), measured.parameters(), strict=True))


def test_workers_leave_a_core_and_fit_into_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.retrain.train.loop.count_cores", lambda: 12)
    assert count_workers(batch_bytes=10_000_000, shared_bytes=10**12) == 11
    assert count_workers(batch_bytes=10_000_000, shared_bytes=64 * 2**20) == 2
    assert count_workers(batch_bytes=10_000_000, shared_bytes=10_000_000) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_workers(batch_bytes=10_000_000, shared_bytes=10**12) == 2
    assert count_workers(batch_bytes=10_000_000, shared_bytes=130_000_000) == 1
