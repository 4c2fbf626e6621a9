"""A small catalog for pages and reviews, in a transaction that is rolled back."""

from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, label_image, open_live_space, promote_model, tag_products


@dataclass(frozen=True)
class SmallCatalog:
    """Seven images of four products. ``image_ids`` has their ids by the names that the tests use."""

    classifier: int
    space_id: int
    image_ids: dict[str, int]

    def name(self, image_id: int) -> str:
        """Return the name of an image."""
        return next(name for name, known in self.image_ids.items() if known == image_id)


IMAGES = {
    "red": NewImage("P1", "dress", (1, 0, 0), 0.9),
    "blue": NewImage("P1", "hat", (0.9, 0.1, 0), 0.4),
    "hat": NewImage("P2", "hat", (0, 1, 0), 0.95),
    "boot": NewImage("P_3", "shoes", (0, 0, 1), 0.6),
    "sandal": NewImage("P_3", "shoes", (0, 0.1, 1), 0.6),
    "labeled": NewImage("PX4", "hat", (0, 0.2, 1), 0.3),
    "untagged": NewImage("PX4", None, None),
}


@pytest.fixture
def catalog(connection: Connection) -> SmallCatalog:
    """The catalog; the images of P1 disagree, and a human called ``labeled`` a dress."""
    # The audit draws images by a hash of their ids, and the ids must not depend on earlier tests. Also rolled back.
    connection.execute(text("ALTER TABLE catalog.images ALTER COLUMN image_id RESTART"))
    connection.execute(text("ALTER TABLE catalog.model_versions ALTER COLUMN model_version_id RESTART"))
    classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
    image_ids = dict(zip(IMAGES, add_images(connection, list(IMAGES.values()), space_id, classifier), strict=True))
    tag_products(connection, classifier, {"P1": "dress"}, disagree=True)
    tag_products(connection, classifier, {"P2": "hat", "P_3": "shoes"})
    label_image(connection, image_ids["labeled"], "dress")
    return SmallCatalog(classifier, space_id, image_ids)
