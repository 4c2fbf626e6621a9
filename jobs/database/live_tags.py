"""Queries on ``current_image_tags``: what the catalog answers at this moment."""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class LiveTag:
    """A live image whose category comes from a model; ``etag`` is that of the bucket's last listing."""

    image_id: int
    bucket: str
    object_key: str
    product_id: str
    etag: str
    category: str
    confidence: float


def sample_live_tags(connection: Connection, images: int) -> list[LiveTag]:
    """So many images, at random but always the same: by a hash of their keys. Humans' labels are left out."""
    statement = text("""
        SELECT t.image_id, t.bucket, t.object_key, t.product_id, i.etag, t.category, t.confidence
        FROM catalog.current_image_tags t JOIN catalog.images i USING (image_id)
        WHERE t.source = 'model' ORDER BY md5(t.object_key), t.image_id LIMIT :images
    """)
    return [LiveTag(*row) for row in connection.execute(statement, {"images": images})]
