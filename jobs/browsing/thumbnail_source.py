"""Where the bytes of an image lie."""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ThumbnailSource:
    """An object of the bucket, as it was last listed; a deleted one may still lie there."""

    bucket: str
    object_key: str
    etag: str
    size_bytes: int
    is_deleted: bool


def find_thumbnail_source(connection: Connection, image_id: int) -> ThumbnailSource | None:
    """The object of an image, or None if there is no such image."""
    statement = text("""
        SELECT bucket, object_key, etag, size_bytes, deleted_at IS NOT NULL
        FROM catalog.images WHERE image_id = :image
    """)
    row = connection.execute(statement, {"image": image_id}).one_or_none()
    return ThumbnailSource(*row) if row else None
