from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Engine

from fixtures.catalog_rows import NewImage, add_images, open_live_space
from jobs.errors import PermanentError
from jobs.search.by_image import find_products_by_image, read_image
from jobs.settings import Settings


def embed_color(pixels: np.ndarray) -> np.ndarray:
    """Return a vector of the mean red, green and blue of an image."""
    mean = pixels.reshape(-1, 3).mean(axis=0) + 1
    unit: np.ndarray = mean / np.linalg.norm(mean)
    return unit


def test_products_similar_to_an_image(stocked: Engine, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "green.jpg"
    Image.new("RGB", (40, 30), "lime").save(path)
    pixels = read_image(path, settings)
    assert pixels.shape == (30, 40, 3)
    hits = find_products_by_image(stocked, lambda _: embed_color(pixels), 2, None).hits
    assert hits[0].product_id == "hat"
    assert hits[0].similarity == pytest.approx(1, abs=0.01)
    shoes = find_products_by_image(stocked, lambda _: embed_color(pixels), 2, "shoes").hits
    assert [hit.product_id for hit in shoes] == ["shoes"]


def test_an_encoder_of_other_dimensions_is_refused(stocked: Engine) -> None:
    with pytest.raises(PermanentError, match=r"2 dimensions, but embedding space .* has 3"):
        find_products_by_image(stocked, lambda _: np.ones(2), 1, None)


def test_a_switch_during_the_embedding_repeats_it(stocked: Engine) -> None:
    loaded_for: list[int] = []

    def embed(encoder_version_id: int) -> np.ndarray:
        loaded_for.append(encoder_version_id)
        if len(loaded_for) == 1:
            with stocked.begin() as connection:
                space_id = open_live_space(connection, 2)
                add_images(connection, [NewImage("new", None, [1, 0])], space_id, classifier=1)
        dimensions = 3 if len(loaded_for) == 1 else 2
        first_axis: np.ndarray = np.eye(dimensions)[0]
        return first_axis

    hits = find_products_by_image(stocked, embed, 5, None).hits
    assert [hit.product_id for hit in hits] == ["new"]
    assert len(set(loaded_for)) == 2


@pytest.mark.parametrize("content", [b"", b"<html>no image</html>", None])
def test_an_unreadable_file_is_named(settings: Settings, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "no-image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PermanentError, match=r"no-image\.jpg"):
        read_image(path, settings)
