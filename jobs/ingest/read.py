"""Stage 3, read: read and hash images, and reuse the results of bytes that were processed before."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_results import ContentCopy, SeenContent
from jobs.database.tagging_work import DueImage, KnownContent
from jobs.failures import ReadReason, Stage
from jobs.ingest.write import StageSeconds, TaggingResults
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

DETAILS = {
    ReadReason.MISSING: "listed, but missing when it was read",
    ReadReason.REPLACED: "replaced after the listing; the next run reads the new bytes",
    ReadReason.ACCESS_DENIED: "the credentials do not allow reading this object",
    ReadReason.REFUSED: "the endpoint lists this object but refuses to return it",
    ReadReason.TOO_LARGE: "larger than CATALOG_MAX_OBJECT_BYTES",
}


@dataclass(frozen=True)
class ImageBytes:
    """The bytes of an image; ``content_hash`` is their sha256, ``seconds`` the time to read them."""

    image: DueImage
    content: bytes
    content_hash: bytes
    seconds: float


def read_image(store: ObjectStore, bucket: str, image: DueImage, max_bytes: int) -> ImageBytes | ItemFailure:
    """Read one image. Return a failure if it cannot be read or has changed since the listing.

    Raises:
        RetryableError, PermanentError: the whole bucket is unavailable.
    """
    started = time.perf_counter()
    content = store.read_unchanged(S3Uri(bucket, image.object_key), image.etag, max_bytes, image.size_bytes)
    if isinstance(content, ReadReason):
        return ItemFailure(image.image_id, image.etag, Stage.READ, content, DETAILS[content])
    return ImageBytes(image, content, hashlib.sha256(content).digest(), time.perf_counter() - started)


@dataclass(frozen=True)
class PendingImage:
    """An image to decode, and the models to run on it."""

    source: ImageBytes
    compute_tag: bool
    compute_embedding: bool


@dataclass(frozen=True)
class DeduplicatedBatch:
    """A batch of one chunk: the images that need a model, and the results of all others."""

    chunk: int
    pending: tuple[PendingImage, ...]
    results: TaggingResults


class Deduplicator:
    """Decide for each image of a shard whether to run the models or to copy the results of equal bytes.

    Bytes of an earlier image in the same shard count as known even before they are committed. This is safe because a
    chunk makes its copies after all earlier chunks are committed.
    """

    def __init__(self, find_known: Callable[[Sequence[bytes]], KnownContent]) -> None:
        self._find_known = find_known
        self._claimed_tags: set[bytes] = set()
        self._claimed_embeddings: set[bytes] = set()

    def split(self, chunk: int, items: Sequence[ImageBytes | ItemFailure]) -> DeduplicatedBatch:
        """Split a batch into images to process and images to copy results for, with one database query."""
        images = [item for item in items if isinstance(item, ImageBytes)]
        known = self._find_known([image.content_hash for image in images])
        claimed = [self._claim(image, known) for image in images]
        pending = tuple(image for image in claimed if image.compute_tag or image.compute_embedding)
        reused = [image.source for image in claimed if not (image.compute_tag or image.compute_embedding)]
        results = TaggingResults(
            contents=tuple(
                SeenContent(image.image.image_id, image.image.etag, image.content_hash, None, None) for image in reused
            ),
            tag_copies=tuple(
                _copy(image.source) for image in claimed if image.source.image.needs_tag and not image.compute_tag
            ),
            embedding_copies=tuple(
                _copy(image.source)
                for image in claimed
                if image.source.image.needs_embedding and not image.compute_embedding
            ),
            failures=tuple(item for item in items if isinstance(item, ItemFailure)),
            reused=len(reused),
            seconds=StageSeconds(read=sum(image.seconds for image in images)),
        )
        return DeduplicatedBatch(chunk, pending, results)

    def _claim(self, source: ImageBytes, known: KnownContent) -> PendingImage:
        content = source.content_hash
        has_tag = content in known.tagged or content in self._claimed_tags
        has_embedding = content in known.embedded or content in self._claimed_embeddings
        image = source.image
        pending = PendingImage(source, image.needs_tag and not has_tag, image.needs_embedding and not has_embedding)
        if pending.compute_tag:
            self._claimed_tags.add(content)
        if pending.compute_embedding:
            self._claimed_embeddings.add(content)
        return pending


def fail_duplicates(results: TaggingResults, failed: dict[bytes, ItemFailure]) -> TaggingResults:
    """Turn each planned copy into a failure if decoding the same bytes has failed."""
    doomed = {
        copy.image_id: failed[copy.content_hash]
        for copy in results.tag_copies + results.embedding_copies
        if copy.content_hash in failed
    }
    if not doomed:
        return results
    lost = [content for content in results.contents if content.image_id in doomed]
    return replace(
        results,
        contents=tuple(content for content in results.contents if content.image_id not in doomed),
        tag_copies=tuple(copy for copy in results.tag_copies if copy.image_id not in doomed),
        embedding_copies=tuple(copy for copy in results.embedding_copies if copy.image_id not in doomed),
        failures=results.failures
        + tuple(replace(doomed[content.image_id], image_id=content.image_id, etag=content.etag) for content in lost),
        reused=results.reused - len(lost),
    )


def _copy(image: ImageBytes) -> ContentCopy:
    return ContentCopy(image.image.image_id, image.content_hash)
