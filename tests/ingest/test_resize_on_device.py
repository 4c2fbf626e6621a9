"""Photos resized as tensors, beside those resized by the decoding processes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.shop import make_photo
from jobs.images.geometry import Geometry
from jobs.ingest.decode_on_gpu import resize_on_device

GEOMETRIES = (
    Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bicubic"),
    Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bilinear", crop_rounding="even"),
    Geometry(resize_to=64, crop_to=64, keep_aspect=False, interpolation="bicubic"),
    Geometry(resize_to=48, crop_to=64, keep_aspect=True, interpolation="bicubic"),
)


@pytest.mark.parametrize("size", [(301, 200), (160, 333), (40, 47)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: f"{geometry.resize_to}-{geometry.crop_to}")
def test_pixels_are_those_of_the_decoding_processes(geometry: Geometry, size: tuple[int, int]) -> None:
    photo = Image.open(io.BytesIO(make_photo(5, size))).convert("RGB")
    tensor = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)
    resized = resize_on_device(tensor, geometry).permute(1, 2, 0).numpy()
    expected = geometry.resize(photo)
    assert resized.dtype == expected.dtype
    assert resized.shape == expected.shape
    difference = np.abs(resized.astype(int) - expected)
    # Of 255 levels: what rounding explains. A crop one pixel off, or another filter, is further away on average.
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) <= 3
