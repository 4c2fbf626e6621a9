from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from demo.blank_checkpoints import MAX_TOKENS, write_blank_clip, write_blank_dual_encoder, write_blank_resnet18
from jobs.images.geometry import Geometry
from jobs.models.checkpoint import hash_weights
from jobs.models.classifier import load_classifier
from jobs.models.device import Device, choose_device
from jobs.models.encoder import load_image_encoder, load_text_encoder, read_dimensions

TEXTS = ["a red striped dress", "a blue dotted shirt", "a pair of black shoes"] * 20


@pytest.fixture
def device() -> Device:
    return choose_device("cpu", "fp32")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_blank_clip(folder, image_side=48, patch_side=16, width=128, dimensions=128, layers=3, texts=TEXTS)
    return folder


def test_blank_classifier_can_predict(tmp_path: Path, device: Device) -> None:
    write_blank_resnet18(tmp_path, 40, ["shirt", "dress", "hat"])
    classifier = load_classifier(tmp_path, device)
    assert classifier.categories == ("shirt", "dress", "hat")
    assert classifier.preprocessing.geometry == Geometry(40, 40, True, "bicubic")
    assert classifier.predict(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 3)


def test_blank_resnet18_has_the_size_of_a_resnet_18(tmp_path: Path) -> None:
    write_blank_resnet18(tmp_path, 224, [str(number) for number in range(1000)])
    classifier = load_classifier(tmp_path, choose_device("cpu", "fp32"))
    # As torchvision counts the model of He et al. 2015.
    assert sum(weight.numel() for weight in classifier.model.parameters()) == 11_689_512


def test_blank_encoder_can_embed(clip: Path, device: Device) -> None:
    encoder = load_image_encoder(clip, device)
    assert encoder.preprocessing.geometry == Geometry(48, 48, True, "bicubic")
    assert encoder.predict(torch.zeros(2, 3, 48, 48, dtype=torch.uint8)).shape == (2, read_dimensions(clip)) == (2, 128)
    assert load_text_encoder(clip, device).embed(["a red hat"]).shape == (1, 128)


def test_blank_dual_encoder_can_embed(tmp_path: Path, device: Device) -> None:
    write_blank_dual_encoder(tmp_path, image_side=40, dimensions=64, texts=TEXTS)
    encoder = load_image_encoder(tmp_path, device)
    assert encoder.preprocessing.geometry == Geometry(40, 40, True, "bicubic")
    pixels = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    assert encoder.predict(pixels).shape == (2, read_dimensions(tmp_path)) == (2, 64)
    assert load_text_encoder(tmp_path, device).embed(["a red hat"]).shape == (1, 64)


def test_weights_are_random(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_blank_resnet18(tmp_path / name, 32, ["dress", "hat"])
    assert hash_weights(tmp_path / "one") != hash_weights(tmp_path / "other")


@pytest.mark.parametrize("text", ["", "a red striped dress", "Zebra-print jeggings", "Größe 42, 写真 👗", "\n\t"])
def test_every_text_has_tokens(clip: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(clip)
    tokens = tokenizer(text)["input_ids"]
    assert (tokens[0], tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens, skip_special_tokens=True).split() == text.lower().split()


def test_known_words_are_one_token_in_any_case(clip: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(clip)
    assert len(tokenizer("red striped dress")["input_ids"]) == 5
    assert tokenizer("Red STRIPED dress") == tokenizer("red striped dress")


def test_long_text_keeps_its_end_token(clip: Path, device: Device) -> None:
    tokenizer = AutoTokenizer.from_pretrained(clip)
    tokens = tokenizer("red " * 100, truncation=True)["input_ids"]
    assert (len(tokens), tokens[-1]) == (MAX_TOKENS, tokenizer.eos_token_id)
    assert np.isfinite(load_text_encoder(clip, device).embed(["red " * 100])).all()
