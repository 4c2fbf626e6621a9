"""Search with a real encoder from a real bucket, untrained but complete."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from fixtures.catalog_rows import NewImage, add_images
from fixtures.shop import Shop, make_image
from jobs.database.model_versions import require_champion
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.search import search_products, similar_products_by_image
from jobs.search.by_image import read_image
from jobs.search.encoders import load_image_embedder, load_text_embedder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three different image files."""
    paths = [tmp_path / f"image-{number}.jpg" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(make_image(number))
    return paths


@pytest.fixture
def searchable_shop(tagging_shop: Shop, images: Sequence[Path]) -> Shop:
    """A shop with one product per image, embedded by its champion encoder."""
    connections = tagging_shop.connections
    with connections.engine.begin() as connection:
        encoder, classifier = (require_champion(connection, kind) for kind in ("encoder", "classifier"))
        assert encoder.dimensions is not None
        space_id = open_space(connection, encoder.model_version_id, encoder.dimensions)
    embed = load_image_embedder(connections, encoder.model_version_id)
    vectors = [embed(read_image(path, connections.settings)) for path in images]
    with connections.engine.begin() as connection:
        new = [NewImage(path.stem, "dress", vector.tolist()) for path, vector in zip(images, vectors, strict=True)]
        add_images(connection, new, space_id, classifier.model_version_id)
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)
    return tagging_shop


def test_an_image_finds_its_own_product(searchable_shop: Shop, images: Sequence[Path]) -> None:
    for path in images:
        hits = similar_products_by_image(path, settings=searchable_shop.connections.settings)
        assert hits[0].product_id == path.stem
        assert hits[0].similarity == pytest.approx(1, abs=0.01)
        assert len(hits) == 3


def test_a_text_is_embedded_by_the_encoder_of_the_live_space(searchable_shop: Shop) -> None:
    connections = searchable_shop.connections
    assert len(search_products("a red dress", settings=connections.settings)) == 3
    with connections.engine.connect() as connection:
        version, stored = connection.execute(
            text("SELECT encoder_version_id, CAST(embedding AS real[]) FROM catalog.text_queries")
        ).one()
        assert version == require_champion(connection, "encoder").model_version_id
    vector = load_text_embedder(connections, version).embed(["a red dress"])[0]
    assert np.allclose(stored, vector, atol=0.01)
    assert np.linalg.norm(stored) == pytest.approx(1, abs=0.01)
