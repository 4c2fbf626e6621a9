"""Compare resized images with the preprocessing of the training."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from fixtures.real_data import require_pretrained
from fixtures.shop import make_image
from jobs.images.decode import DecodeLimits, PreparedImage, prepare_image
from jobs.images.geometry import Geometry
from jobs.models.preprocessing import Preprocessing

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "clothing-small"


def list_real_images(count: int) -> list[Path]:
    """Spread over all that are there."""
    images = sorted(IMAGES.glob("*/*/*.jpg"))
    if not images:
        pytest.skip("no real images: features of rendered ones say little")
    return images[:: len(images) // count][:count]


def enlarge(image: Path) -> bytes:
    """Return a large image, which a decoder can shrink."""
    buffer = io.BytesIO()
    Image.open(image).convert("RGB").resize((1200, 1600), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("is_large", [False, True], ids=["400 x 533", "1200 x 1600"])
def test_features_match_the_preprocessing_of_the_training(is_large: bool) -> None:
    folder = require_pretrained()
    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    preprocessing = Preprocessing.from_checkpoint(folder)
    limits = DecodeLimits(10**8, 8, 2 * preprocessing.geometry.resize_to)
    cosines = []
    for path in list_real_images(24):
        content = enlarge(path) if is_large else path.read_bytes()
        prepared = prepare_image(content, limits, [preprocessing.geometry])
        assert isinstance(prepared, PreparedImage)
        pixels = torch.from_numpy(prepared.inputs[0].transpose(2, 0, 1).copy())[None]
        theirs = processor(Image.open(io.BytesIO(content)).convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            ours = model(preprocessing.normalize(pixels, torch.float32)).pooler_output
            expected = model(theirs).pooler_output
        cosines.append(float(torch.cosine_similarity(ours, expected)))
    assert np.mean(cosines) > 0.999
    assert min(cosines) > 0.995


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(400, 533), (533, 400), (50, 61), (1200, 1600)])
def test_pixels_match_pillow(interpolation: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cykooz_resizer", reason="no package for this machine, on which Pillow resizes")
    image = Image.open(io.BytesIO(make_image(3, size)))
    geometry = Geometry(256, 224, keep_aspect=True, interpolation=interpolation)
    fast = geometry.resize(image).astype(int)
    monkeypatch.setattr("jobs.images.geometry.cykooz_resizer", None)
    difference = np.abs(fast - geometry.resize(image).astype(int))
    assert difference.mean() < 0.3
    assert np.quantile(difference, 0.99) <= 2
