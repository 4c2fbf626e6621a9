"""A small catalog to search from Python."""

import pytest
from sqlalchemy import Engine

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, tag_products
from jobs.settings import Settings, make_settings


@pytest.fixture
def stocked(engine: Engine) -> Engine:
    """Three products in a space of three dimensions, one axis each: dress, hat, shoes."""
    with engine.begin() as connection:
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
        axes = {"dress": [1.0, 0.0, 0.0], "hat": [0.0, 1.0, 0.0], "shoes": [0.0, 0.0, 1.0]}
        new = [NewImage(name, name, axis, object_key=f"{name}.jpg") for name, axis in axes.items()]
        add_images(connection, new, space_id, classifier)
        tag_products(connection, classifier, {name: name for name in axes})
    return engine


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings with a bucket that is never read."""
    return make_settings(
        {
            "CATALOG_DATABASE_URL": database_url,
            "CATALOG_SOURCE_URI": "s3://shop/images",
            "CATALOG_ARTIFACTS_URI": "s3://shop/artifacts",
            "CATALOG_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        }
    )
