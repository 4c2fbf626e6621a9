"""A shop for the tests: a bucket of real photos, a catalog, and models that are quick."""

import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image
from sqlalchemy import text

from jobs.connections import Connections, connect
from jobs.settings import make_settings
from tests.s3_server import S3Server

CATEGORIES = ("dress", "hat", "shirt", "shoe")
IMAGE_SIDE = 32


@dataclass(frozen=True)
class TinyModels:
    """Folders of untrained checkpoints; the second classifier differs from the first in its weights."""

    classifier: Path
    other_classifier: Path
    encoder: Path
    other_encoder: Path


@dataclass(frozen=True)
class Shop:
    """Connections to a shop, and the folder behind its bucket."""

    connections: Connections
    bucket_folder: Path
    environment: dict[str, str]

    def put(self, key: str, content: bytes) -> None:
        """Upload an object through the endpoint."""
        self.connections.store.write(replace(self.connections.source, key=key), content)

    def put_photos(self, count: int, seed: int = 0) -> list[str]:
        """Upload different photos of products with two photos each; returns the keys."""
        keys = [f"p{seed}{number // 2:03d}_{number % 2 + 1}.jpg" for number in range(count)]
        for number, key in enumerate(keys):
            self.put(key, make_photo(seed * 10_000 + number))
        return keys

    def remove(self, key: str) -> None:
        """Delete an object."""
        self.connections.store._client.delete_object(Bucket=self.connections.source.bucket, Key=key)

    def assert_codes_are_current(self) -> None:
        """Whether searches in large categories know every vector of the live space by its categories of now."""
        codes = self.query("""
            SELECT image_id, image_category, product_category FROM catalog.vector_codes
            WHERE space_id = catalog.live_space() ORDER BY 1
        """)
        assert codes
        assert codes == self.query("""
            SELECT e.image_id, t.category, p.category
            FROM catalog.image_embeddings e
            JOIN catalog.current_image_tags t USING (image_id)
            JOIN catalog.current_product_tags p USING (product_id)
            WHERE e.space_id = catalog.live_space() ORDER BY 1
        """)

    def query(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with self.connections.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), parameters)]

    def list_artifacts(self) -> Sequence[str]:
        """The keys of everything that the jobs have stored."""
        pages = self.connections.store.list_pages(self.connections.artifacts)
        return [item.key for page in pages for item in page]

    def with_settings(self, **changes: Any) -> Connections:
        """The same connections under other settings."""
        return replace(self.connections, settings=self.connections.settings.model_copy(update=changes))


@contextmanager
def open_shop(server: S3Server, database_url: str, model_cache: Path) -> Iterator[Shop]:
    """Make two buckets and connect; they are removed at the end."""
    name = f"test-{uuid4().hex[:12]}"
    folders = [server.buckets / name, server.buckets / f"{name}-artifacts"]
    environment = {
        **server.environment,
        "CATALOG_DATABASE_URL": database_url,
        "CATALOG_SOURCE_URI": f"s3://{name}/",
        "CATALOG_ARTIFACTS_URI": f"s3://{name}-artifacts/",
        "CATALOG_MODEL_CACHE": str(model_cache),
        "CATALOG_CHUNK_SIZE": "8",
        "CATALOG_SHARD_SIZE": "24",
        "CATALOG_BATCH_SIZE": "4",
        "CATALOG_DECODE_PROCESSES": "1",
        "CATALOG_FAILED_SHARE_LIMIT": "1",
    }
    with connect(make_settings(environment)) as connections:
        for folder in folders:
            connections.store._client.create_bucket(Bucket=folder.name)
        yield Shop(connections, folders[0], environment)
    for folder in folders:
        shutil.rmtree(folder)


def make_photo(seed: int, size: tuple[int, int] = (96, 128), image_format: str = "JPEG") -> bytes:
    """A photo of coloured blocks that no other seed gives."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(buffer, image_format)
    return buffer.getvalue()


def promote_tiny_models(shop: Shop, models: TinyModels) -> Shop:
    """Make the first classifier and the first encoder the champions of a shop."""
    # Here, so that tests that need no model do not pay for importing torch.
    from tests.champions import make_champion

    make_champion(shop.connections, models.classifier, "classifier")
    make_champion(shop.connections, models.encoder, "encoder")
    return shop


def write_tiny_models(folder: Path) -> TinyModels:
    """Write the checkpoints."""
    # Here, so that tests that need no model do not pay for importing torch.
    from jobs.training.blank_checkpoints import write_blank_clip
    from tests.small_classifier import write_small_classifier

    models = TinyModels(*(folder / name for name in ("classifier", "other-classifier", "encoder", "other-encoder")))
    for classifier in (models.classifier, models.other_classifier):
        write_small_classifier(classifier, CATEGORIES)
    for encoder in (models.encoder, models.other_encoder):
        write_blank_clip(
            encoder, IMAGE_SIDE, patch_side=16, width=64, dimensions=64, layers=2, texts=["red striped dress", "hat"]
        )
    return models
