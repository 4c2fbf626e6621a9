from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

from fixtures.shop import IMAGE_SIDE, TinyModels
from jobs.database.model_builds import Precision
from jobs.errors import PermanentError
from jobs.models.device import PRECISIONS, Device, choose_device
from jobs.models.encoder import load_image_encoder, load_text_encoder, read_dimensions

SIGLIP_TOKENS = 16


@pytest.fixture
def device() -> Device:
    return choose_device("cpu", "fp32")


@pytest.fixture(scope="module")
def tiny_siglip(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a SigLIP with random weights. As in real SigLIPs, the tokenizer returns no attention mask."""
    folder = tmp_path_factory.mktemp("siglip")
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    tokenizer = AutoTokenizer.from_pretrained(tiny_models.encoder, model_input_names=["input_ids"])
    config = SiglipConfig(
        vision_config=tower | {"image_size": IMAGE_SIDE, "patch_size": 16},
        text_config=tower
        | {"vocab_size": len(tokenizer), "max_position_embeddings": SIGLIP_TOKENS, "projection_size": 64},
    )
    SiglipModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(params=["clip", "siglip"])
def encoder(request: pytest.FixtureRequest, tiny_models: TinyModels, tiny_siglip: Path) -> Path:
    return tiny_models.encoder if request.param == "clip" else tiny_siglip


def make_pixels(count: int) -> torch.Tensor:
    shape = (count, 3, IMAGE_SIDE, IMAGE_SIDE)
    return torch.from_numpy(np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8))


def test_image_vectors_match_transformers(encoder: Path, device: Device) -> None:
    pixels = make_pixels(5)
    vectors = load_image_encoder(encoder, device).predict(pixels)

    processor, model = AutoImageProcessor.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    with torch.inference_mode():
        features = model.get_image_features(**processor(images, return_tensors="pt")).pooler_output
    assert vectors.dtype is torch.float32
    torch.testing.assert_close(vectors, functional.normalize(features, dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(5))


def test_texts_become_unit_vectors_of_the_same_space(encoder: Path, device: Device) -> None:
    vectors = load_text_encoder(encoder, device).embed(["red striped dress", "", "Hüte! 👒", "no such word"])
    assert vectors.shape == (4, read_dimensions(encoder))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert load_image_encoder(encoder, device).predict(make_pixels(1)).shape == (1, read_dimensions(encoder))


def test_padding_does_not_change_vectors_of_clip(tiny_models: TinyModels, device: Device) -> None:
    vector = load_text_encoder(tiny_models.encoder, device).embed(["red dress"])[0]
    tokenizer = AutoTokenizer.from_pretrained(tiny_models.encoder)
    model = AutoModel.from_pretrained(tiny_models.encoder).eval()
    with torch.inference_mode():
        features = model.get_text_features(**tokenizer("red dress", return_tensors="pt")).pooler_output
    np.testing.assert_allclose(vector, functional.normalize(features, dim=-1)[0].numpy(), atol=1e-5)


def test_texts_of_siglip_are_padded_to_full_length(tiny_siglip: Path, device: Device) -> None:
    vector = load_text_encoder(tiny_siglip, device).embed(["red dress"])[0]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_siglip), AutoModel.from_pretrained(tiny_siglip).eval()
    tokens = tokenizer("red dress", padding="max_length", max_length=SIGLIP_TOKENS, return_tensors="pt")
    assert tokens.keys() == {"input_ids"}
    with torch.inference_mode():
        features = model.get_text_features(**tokens).pooler_output
    np.testing.assert_allclose(vector, functional.normalize(features, dim=-1)[0].numpy(), atol=1e-5)


def test_a_text_vector_does_not_depend_on_its_batch(encoder: Path, device: Device) -> None:
    texts = ["hat", "red striped dress with a very long description"]
    embedder = load_text_encoder(encoder, device)
    together = embedder.embed(texts)
    np.testing.assert_allclose(together, np.concatenate([embedder.embed([text]) for text in texts]), atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_missing_padding_does_not_change_vectors(encoder: Path, device: Device) -> None:
    embedder = load_text_encoder(encoder, device)
    text = ["red striped dress"]
    longest = embedder.model.config.text_config.max_position_embeddings
    assert len(embedder.tokenizer(text)["input_ids"][0]) < longest
    tokens = embedder.tokenizer(text, padding="max_length", max_length=longest, return_tensors="pt")
    with torch.inference_mode():
        features = embedder.model.get_text_features(**tokens).pooler_output
    np.testing.assert_allclose(embedder.embed(text), functional.normalize(features, dim=-1).numpy(), atol=1e-5)


def test_long_texts_are_truncated(encoder: Path, device: Device) -> None:
    embedder = load_text_encoder(encoder, device)
    long = "red striped dress " * 100
    vectors = embedder.embed([long, f"{long} and a hat", "red striped dress"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 0.001


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bit_vectors_are_close_to_float32(encoder: Path, device: Device, precision: Precision) -> None:
    pixels, rounded = make_pixels(3), Device(torch.device("cpu"), PRECISIONS[precision])
    exact = load_image_encoder(encoder, device).predict(pixels)
    assert (exact * load_image_encoder(encoder, rounded).predict(pixels)).sum(-1).min() > 0.999
    texts = ["red striped dress", "hat"]
    exact_texts = load_text_encoder(encoder, device).embed(texts)
    assert (exact_texts * load_text_encoder(encoder, rounded).embed(texts)).sum(-1).min() > 0.999


def test_a_classifier_is_refused(tiny_models: TinyModels, device: Device) -> None:
    for load in (load_image_encoder, load_text_encoder):
        with pytest.raises(PermanentError, match="ResNetModel, which has no image and text features"):
            load(tiny_models.classifier, device)


def test_half_an_encoder_is_refused(tiny_models: TinyModels, device: Device, tmp_path: Path) -> None:
    folder = Path(copytree(tiny_models.encoder, tmp_path / "half"))
    model = AutoModel.from_pretrained(folder)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("text_model")}
    model.save_pretrained(folder, state_dict=weights)
    with pytest.raises(PermanentError, match=r"lacks weights of CLIPModel \(text_model"):
        load_image_encoder(folder, device)


def test_an_encoder_without_a_tokenizer_is_refused(tiny_models: TinyModels, device: Device, tmp_path: Path) -> None:
    folder = Path(copytree(tiny_models.encoder, tmp_path / "mute"))
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PermanentError, match=r"holds no tokenizer: none of .*tokenizer\.json") as caught:
        load_text_encoder(folder, device)
    assert "\n" not in str(caught.value)
