"""Stage 3b: which bytes need a model at all; the same bytes are answered once, under whatever key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_results import ContentCopy, SeenContent
from jobs.database.tagging_work import KnownContent
from jobs.ingest.read import ImageBytes
from jobs.ingest.write import Outcome, StageSeconds

FindKnownContent = Callable[[Sequence[bytes]], KnownContent]


@dataclass(frozen=True)
class FreshImage:
    """An image that has to be decoded, and for which of the two models."""

    source: ImageBytes
    compute_tag: bool
    compute_embedding: bool


@dataclass(frozen=True)
class RoutedBatch:
    """A batch of one chunk: what to compute, and an outcome for all the rest."""

    chunk: int
    fresh: tuple[FreshImage, ...]
    settled: Outcome


class ContentRouter:
    """Decides for each image between computing and copying, in the order of the shard.

    Bytes that an earlier image of the shard is about to answer count as known, although they may not be
    committed yet: copies are made by the writer, which keeps that order.
    """

    def __init__(self, find_known: FindKnownContent) -> None:
        self._find_known = find_known
        self._claimed_tags: set[bytes] = set()
        self._claimed_embeddings: set[bytes] = set()

    def route(self, chunk: int, items: Sequence[ImageBytes | ItemFailure]) -> RoutedBatch:
        """Split a batch; a database look-up for all its images together."""
        images = [item for item in items if isinstance(item, ImageBytes)]
        known = self._find_known([image.content_hash for image in images])
        routed = [self._claim(image, known) for image in images]
        fresh = tuple(image for image in routed if image.compute_tag or image.compute_embedding)
        reused = [image.source for image in routed if not (image.compute_tag or image.compute_embedding)]
        settled = Outcome(
            contents=tuple(_seen(image) for image in reused),
            tags=(),
            embeddings=(),
            tag_copies=tuple(
                _copy(image.source) for image in routed if image.source.image.needs_tag and not image.compute_tag
            ),
            embedding_copies=tuple(
                _copy(image.source)
                for image in routed
                if image.source.image.needs_embedding and not image.compute_embedding
            ),
            failures=tuple(item for item in items if isinstance(item, ItemFailure)),
            reused=len(reused),
            seconds=StageSeconds(read=sum(image.seconds for image in images)),
        )
        return RoutedBatch(chunk, fresh, settled)

    def _claim(self, source: ImageBytes, known: KnownContent) -> FreshImage:
        content = source.content_hash
        compute_tag = source.image.needs_tag and content not in known.tagged | self._claimed_tags
        compute_embedding = source.image.needs_embedding and content not in known.embedded | self._claimed_embeddings
        if compute_tag:
            self._claimed_tags.add(content)
        if compute_embedding:
            self._claimed_embeddings.add(content)
        return FreshImage(source, compute_tag, compute_embedding)


def fail_twins(outcome: Outcome, failed: dict[bytes, ItemFailure]) -> Outcome:
    """Let images share the fate of equal bytes that failed after they were counted on."""
    doomed = {
        copy.image_id: failed[copy.content_hash]
        for copy in outcome.tag_copies + outcome.embedding_copies
        if copy.content_hash in failed
    }
    if not doomed:
        return outcome
    lost = [content for content in outcome.contents if content.image_id in doomed]
    return replace(
        outcome,
        contents=tuple(content for content in outcome.contents if content.image_id not in doomed),
        tag_copies=tuple(copy for copy in outcome.tag_copies if copy.image_id not in doomed),
        embedding_copies=tuple(copy for copy in outcome.embedding_copies if copy.image_id not in doomed),
        failures=outcome.failures
        + tuple(replace(doomed[content.image_id], image_id=content.image_id, etag=content.etag) for content in lost),
        reused=outcome.reused - len(lost),
    )


def _seen(image: ImageBytes) -> SeenContent:
    return SeenContent(image.image.image_id, image.image.etag, image.content_hash, None, None)


def _copy(image: ImageBytes) -> ContentCopy:
    return ContentCopy(image.image.image_id, image.content_hash)
