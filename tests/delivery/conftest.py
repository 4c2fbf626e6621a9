"""A catalog of three tagged products, whose changes were read."""

from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, make_url

from fixtures.catalog_rows import NewImage, add_images, label_image, open_live_space, promote_model, tag_products
from tests.test_cli import make_environment


@dataclass(frozen=True)
class TaggedCatalog:
    """An engine, the environment of commands, and the ids of the images of p1, p2 and p3."""

    engine: Engine
    environment: dict[str, str]
    image_ids: list[int]
    classifier: int

    def label(self, product: int, category: str) -> None:
        """Label the image of a product."""
        with self.engine.begin() as connection:
            label_image(connection, self.image_ids[product - 1], category)


@pytest.fixture
def catalog(engine: Engine, database_url: str) -> TaggedCatalog:
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        images = [NewImage(f"p{number}", vector=(1, 0, 0)) for number in (1, 2, 3)]
        image_ids = add_images(connection, images, space, classifier)
        tag_products(connection, classifier, {f"p{number}": "dress" for number in (1, 2, 3)})
    environment = make_environment(CATALOG_DATABASE_URL=make_url(database_url).render_as_string(hide_password=False))
    return TaggedCatalog(engine, environment, image_ids, classifier)
