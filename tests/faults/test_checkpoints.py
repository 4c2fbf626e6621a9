"""Load checkpoints with missing or unusual parts."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.command_line import run_job
from fixtures.shop import Shop, TinyModels
from jobs.errors import PermanentError, RetryableError, TerminatedError
from jobs.models.checkpoint import explain_damage, require_numbers
from jobs.models.device import Device
from jobs.models.encoder import load_text_encoder, load_towers
from jobs.models.preprocessing import Preprocessing
from jobs.retrain.train.train_classifier import _load_base

DEVICE = Device(torch.device("cpu"), torch.float32)
CATEGORIES = ("hat", "dress", "shoes")
Change = Callable[[dict[str, torch.Tensor]], None]


def change_weights(source: Path, target: Path, change: Change) -> Path:
    copytree(source, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def change_json(source: Path, target: Path, name: str, **changes: object) -> Path:
    copytree(source, target)
    path = target / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


def spoil(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if name.endswith(".weight") and not name.startswith("classifier."))
    weights[name] = torch.full_like(weights[name], torch.nan)


def drop_some(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if ".stages.1." in name]:
        del weights[name]


def test_missing_weights_are_not_replaced_by_random_ones(tiny_models: TinyModels, tmp_path: Path) -> None:
    base = change_weights(tiny_models.classifier, tmp_path / "base", drop_some)
    with pytest.raises(PermanentError, match=r"lacks weights of .*stages\.1"):
        _load_base(base, CATEGORIES)


def test_a_base_may_have_no_head_or_another_head(tiny_models: TinyModels, tmp_path: Path) -> None:
    def drop_head(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("classifier.")]:
            del weights[name]

    for base in (change_weights(tiny_models.classifier, tmp_path / "base", drop_head), tiny_models.classifier):
        assert _load_base(base, CATEGORIES).config.num_labels == len(CATEGORIES)


def test_the_error_names_weights_that_are_not_finite(tiny_models: TinyModels, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"is damaged: its weights .*\.weight are not all finite numbers"):
        _load_base(change_weights(tiny_models.classifier, tmp_path / "classifier", spoil), CATEGORIES)
    encoder = change_weights(tiny_models.encoder, tmp_path / "encoder", spoil)
    with pytest.raises(PermanentError, match="are not all finite numbers"):
        require_numbers(load_towers(encoder, torch.float32), encoder)


@pytest.mark.parametrize("mean", [0.5, [0.5], [0.5, 0.5, 0.5]])
def test_a_single_mean_applies_to_all_channels(
    mean: float | list[float], tiny_models: TinyModels, tmp_path: Path
) -> None:
    folder = change_json(
        tiny_models.classifier, tmp_path / "one", "preprocessor_config.json", image_mean=mean, image_std=mean
    )
    assert Preprocessing.from_checkpoint(folder).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("changes", [{"pad_token": None}, {"model_max_length": 8}])
def test_a_tokenizer_may_have_no_padding_token_or_a_shorter_limit(
    changes: dict[str, object], tiny_models: TinyModels, tmp_path: Path
) -> None:
    folder = change_json(tiny_models.encoder, tmp_path / "odd", "tokenizer_config.json", **changes)
    vectors = load_text_encoder(folder, DEVICE).embed(["red striped dress", "hat", "hat " * 100])
    assert vectors.shape == (3, 64)
    plain = load_text_encoder(tiny_models.encoder, DEVICE).embed(["hat"])
    assert vectors[1] == pytest.approx(plain[0], abs=1e-5)


@pytest.mark.parametrize("error", [TerminatedError("stopped"), RetryableError("away"), MemoryError()])
def test_errors_of_the_job_are_not_reported_as_damage(error: Exception) -> None:
    with pytest.raises(type(error)), explain_damage("a file"):
        raise error


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b"{"),
        ("tokenizer.json", b'{"version": "1.0"}'),
        ("tokenizer.json", b"null"),
        ("preprocessor_config.json", b'{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 1e9}}'),
        ("model.safetensors", b"\xff" * 100),
    ],
)
def test_a_damaged_file_gives_one_line(
    name: str, content: bytes, tiny_models: TinyModels, shop: Shop, tmp_path: Path
) -> None:
    folder = copytree(tiny_models.encoder, tmp_path / "base")
    (folder / name).write_bytes(content)
    answer = run_job("adopt", "encoder", str(folder), environment=shop.environment)
    assert answer.exit_code == 78
    assert "base" in answer.error
