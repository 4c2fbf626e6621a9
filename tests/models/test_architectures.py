"""Run a small checkpoint of each architecture in docs/models.md in every engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

from fixtures.shop import CATEGORIES
from jobs.database.model_versions import ModelKind
from jobs.errors import PermanentError
from jobs.models.classifier import load_classifier
from jobs.models.device import Device
from jobs.models.encoder import load_image_encoder, load_text_encoder, read_dimensions
from jobs.models.image_model import finish
from jobs.models.openvino_model import compile_graphs
from jobs.models.torch_model import describe_checkpoint
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.train.context import copy_preprocessing
from jobs.settings import PROJECT_ROOT
from tests.models.tiny_architectures import CLASSIFIERS, ENCODERS, write_siglip2_naflex

DEVICE = Device(torch.device("cpu"), torch.float32)
TEXTS = ["red striped dress", "a hat"]

# Not traced for coverage, because that doubles the time and most of the code is in Transformers and OpenVINO.
pytestmark = pytest.mark.no_cover


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a checkpoint, and the name of its architecture."""

    name: str
    folder: Path


def write(writers: dict[str, Callable[[Path], None]], name: str, factory: pytest.TempPathFactory) -> Checkpoint:
    folder = factory.mktemp("architecture") / "checkpoint"
    torch.manual_seed(0)
    writers[name](folder)
    return Checkpoint(name, folder)


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(CLASSIFIERS, request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write(ENCODERS, request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Return smooth images, which both resize methods convert to the same pixels, except for rounding."""
    rng = np.random.default_rng(0)
    blocks = [Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)) for _ in range(3)]
    return [block.resize((96, 80), Image.Resampling.BICUBIC) for block in blocks]


def ask_transformers(folder: Path, model: Any, images: list[Image.Image]) -> Any:
    """Return the outputs of Transformers, with the preprocessing of the checkpoint."""
    inputs = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs)


def load_pixels(geometry: Any, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([geometry.apply(np.asarray(image)) for image in images])


def test_classifiers_match_transformers(classifier: Checkpoint, images: list[Image.Image]) -> None:
    ours = load_classifier(classifier.folder, DEVICE)
    assert ours.categories == CATEGORIES
    probabilities = ours.predict(load_pixels(ours.preprocessing.geometry, images))
    model = AutoModelForImageClassification.from_pretrained(classifier.folder).eval()
    expected = ask_transformers(classifier.folder, model, images).logits.softmax(-1)
    torch.testing.assert_close(probabilities, expected, atol=2e-2, rtol=0)
    # With the same pixels, the outputs are the same.
    inputs = ours.preprocessing.normalize(load_pixels(ours.preprocessing.geometry, images), torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(probabilities, model(inputs).logits.softmax(-1), atol=1e-5, rtol=1e-4)


def test_encoders_match_transformers(encoder: Checkpoint, images: list[Image.Image]) -> None:
    ours = load_image_encoder(encoder.folder, DEVICE)
    vectors = ours.predict(load_pixels(ours.preprocessing.geometry, images))
    model = AutoModel.from_pretrained(encoder.folder).eval()
    expected = ask_transformers(encoder.folder, model.get_image_features, images).pooler_output
    assert vectors.shape == (len(images), read_dimensions(encoder.folder))
    assert (vectors * functional.normalize(expected, dim=-1)).sum(-1).min() > 0.999
    inputs = ours.preprocessing.normalize(load_pixels(ours.preprocessing.geometry, images), torch.float32)
    with torch.inference_mode():
        same = functional.normalize(model.get_image_features(inputs).pooler_output, dim=-1)
    torch.testing.assert_close(vectors, same, atol=1e-5, rtol=1e-4)


def test_text_vectors_match_transformers(encoder: Checkpoint) -> None:
    ours = load_text_encoder(encoder.folder, DEVICE)
    vectors = ours.embed(TEXTS)
    # Embed one text at a time, padded as SigLIP requires. Other encoders ignore the padding.
    tokenizer, model = AutoTokenizer.from_pretrained(encoder.folder), AutoModel.from_pretrained(encoder.folder).eval()
    longest = model.config.text_config.max_position_embeddings
    for text, vector in zip(TEXTS, vectors, strict=True):
        tokens = tokenizer(text, padding="max_length", max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            expected = functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)[0]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def ask_graph(folder: Path, kind: ModelKind, pixels: torch.Tensor, work: Path) -> np.ndarray:
    """Return the outputs of an OpenVINO graph that is built as in `optimize`."""
    save_graph(convert_checkpoint(folder, kind), work)
    graph = compile_graphs([work], "fp32", pass_size=2)
    outputs = graph.infer(pixels.permute(0, 2, 3, 1).contiguous().numpy())[0]
    return finish(describe_checkpoint(folder, kind), outputs)


def test_a_classifier_becomes_a_graph(classifier: Checkpoint, images: list[Image.Image], tmp_path: Path) -> None:
    ours = load_classifier(classifier.folder, DEVICE)
    pixels = load_pixels(ours.preprocessing.geometry, images)
    answers = ask_graph(classifier.folder, "classifier", pixels, tmp_path / "graph")
    np.testing.assert_allclose(answers, ours.predict(pixels).numpy(), atol=1e-4)


def test_an_encoder_becomes_a_graph(encoder: Checkpoint, images: list[Image.Image], tmp_path: Path) -> None:
    ours = load_image_encoder(encoder.folder, DEVICE)
    pixels = load_pixels(ours.preprocessing.geometry, images)
    answers = ask_graph(encoder.folder, "encoder", pixels, tmp_path / "graph")
    np.testing.assert_allclose(answers, ours.predict(pixels).numpy(), atol=1e-4)


def test_a_saved_encoder_gives_the_vectors_of_its_base(encoder: Checkpoint, tmp_path: Path) -> None:
    """Save the encoder as the train stage does, and compare the vectors."""
    AutoModel.from_pretrained(encoder.folder).save_pretrained(tmp_path)
    copy_preprocessing(encoder.folder, tmp_path)
    AutoTokenizer.from_pretrained(encoder.folder).save_pretrained(tmp_path)
    before, after = load_image_encoder(encoder.folder, DEVICE), load_image_encoder(tmp_path, DEVICE)
    assert after.preprocessing == before.preprocessing
    texts = [load_text_encoder(folder, DEVICE).embed(TEXTS) for folder in (encoder.folder, tmp_path)]
    np.testing.assert_allclose(texts[0], texts[1], atol=1e-6)


def test_a_patch_processor_is_refused_with_an_alternative(tmp_path: Path) -> None:
    write_siglip2_naflex(tmp_path / "checkpoint")
    with pytest.raises(PermanentError, match="Use a checkpoint of a fixed size") as caught:
        load_image_encoder(tmp_path / "checkpoint", DEVICE)
    assert "\n" not in str(caught.value)


def test_every_architecture_is_documented() -> None:
    document = (PROJECT_ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith("|")]
    for name in (*CLASSIFIERS, *ENCODERS):
        assert any(row.startswith(f"| {name} |") for row in rows), name
