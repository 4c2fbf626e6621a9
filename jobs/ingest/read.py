"""Stage 3: the bytes of one image, and their hash."""

import hashlib
import time
from dataclasses import dataclass

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_work import DueImage
from jobs.failures import ObjectFault, Stage
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

DETAILS = {
    ObjectFault.MISSING: "listed, but gone when it was read",
    ObjectFault.REPLACED: "replaced between listing and reading; the next run sees the new bytes",
    ObjectFault.ACCESS_DENIED: "the credentials may not read this object",
    ObjectFault.REFUSED: "the endpoint lists this object, but does not hand it out",
    ObjectFault.TOO_LARGE: "more bytes than CATALOG_MAX_OBJECT_BYTES",
}


@dataclass(frozen=True)
class ImageBytes:
    """An image as it lies in the bucket; ``content_hash`` is its sha256, ``seconds`` the time to get it."""

    image: DueImage
    content: bytes
    content_hash: bytes
    seconds: float


def read_image(store: ObjectStore, bucket: str, image: DueImage, max_bytes: int) -> ImageBytes | ItemFailure:
    """Read one image, if it still is what was listed.

    Raises:
        RetryableError, PermanentError: the bucket as a whole does not answer.
    """
    started = time.perf_counter()
    content = store.read_unchanged(S3Uri(bucket, image.object_key), image.etag, max_bytes, image.size_bytes)
    if isinstance(content, ObjectFault):
        return ItemFailure(image.image_id, image.etag, Stage.READ, content, DETAILS[content])
    return ImageBytes(image, content, hashlib.sha256(content).digest(), time.perf_counter() - started)
