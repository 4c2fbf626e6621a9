"""Stage 6, write: store the results of a chunk and its ledger row in one transaction."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from sqlalchemy import Engine

from jobs.database.drift_references import CONFIDENCE_BINS
from jobs.database.item_failures import ItemFailure, keep_current, record_failures, resolve_failures
from jobs.database.model_builds import DeviceClass
from jobs.database.spaces import has_space_index
from jobs.database.tagging_results import (
    ContentCopy,
    Embedding,
    SeenContent,
    Tag,
    copy_embeddings,
    copy_tags,
    delete_stale_results,
    record_contents,
    upsert_embeddings,
    upsert_tags,
)
from jobs.database.tagging_runs import ChunkCounts, insert_chunk
from jobs.failures import RETRYABLE_REASONS
from jobs.ingest.manifest import ShardHeader


@dataclass(frozen=True)
class StageSeconds:
    """Busy time, summed over parallel workers."""

    read: float = 0.0
    decode: float = 0.0
    predict: float = 0.0

    def __add__(self, other: "StageSeconds") -> "StageSeconds":
        return StageSeconds(self.read + other.read, self.decode + other.decode, self.predict + other.predict)


@dataclass(frozen=True)
class TaggingResults:
    """The results of a batch or chunk: every image is in ``contents`` or in ``failures``.

    ``tag_copies`` and ``embedding_copies`` list images with the same bytes as an image that has results. ``reused``
    counts the images that needed no model.
    """

    contents: tuple[SeenContent, ...] = ()
    tags: tuple[Tag, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    tag_copies: tuple[ContentCopy, ...] = ()
    embedding_copies: tuple[ContentCopy, ...] = ()
    failures: tuple[ItemFailure, ...] = ()
    reused: int = 0
    seconds: StageSeconds = StageSeconds()

    def __add__(self, other: "TaggingResults") -> "TaggingResults":
        return TaggingResults(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class UsedBuilds:
    """The ids of the builds that computed the results, and what ran them. Without a classifier, its id is None."""

    classifier: int | None
    encoder: int
    device_class: DeviceClass


def write_chunk(
    engine: Engine,
    header: ShardHeader,
    chunk: int,
    results: TaggingResults,
    builds: UsedBuilds,
    waiting_seconds: Mapping[str, float],
    take_lap: Callable[[], float],
    wait_for_earlier: Callable[[], None],
) -> ChunkCounts:
    """Commit a chunk with its ledger row. Other chunks may be written at the same time, on other connections.

    ``take_lap`` returns the seconds since the previous commit of the shard. ``wait_for_earlier`` returns once all
    earlier chunks are committed, whose results this one may have to copy.
    """
    if results.tag_copies or results.embedding_copies:
        wait_for_earlier()
    started = time.perf_counter()
    models = header.models
    with engine.begin() as connection:
        current = keep_current(connection, results.failures)
        # If a run is resumed late, images may have been replaced or deleted since. A later run tags the new bytes.
        superseded = len(results.failures) - len(current)
        results = replace(results, failures=current)
        record_contents(connection, results.contents)
        upsert_tags(connection, models.classifier_version_id, builds.classifier, results.tags)
        copy_tags(connection, models.classifier_version_id, results.tag_copies)
        upsert_embeddings(connection, models.space_id, builds.encoder, results.embeddings)
        copy_embeddings(connection, models.space_id, results.embedding_copies)
        record_failures(connection, header.run_id, results.failures)
        delete_stale_results(
            connection, [failure.image_id for failure in results.failures if failure.reason not in RETRYABLE_REASONS]
        )
        resolve_failures(connection, [content.image_id for content in results.contents])
        # Check for the index after the writes, which prevent others from building one before the commit.
        has_index = has_space_index(connection, models.space_id)
        counts = ChunkCounts(
            entries=len(results.contents) + len(results.failures) + superseded,
            tagged=len(results.contents) - results.reused,
            reused=results.reused + superseded,
            failed=len(results.failures),
            failure_reasons=dict(Counter(failure.reason for failure in results.failures)),
            read_seconds=results.seconds.read,
            decode_seconds=results.seconds.decode,
            predict_seconds=results.seconds.predict,
            write_seconds=time.perf_counter() - started,
            wall_seconds=take_lap(),
            category_counts=dict(Counter(tag.category for tag in results.tags)),
            confidence_counts=count_confidences([tag.confidence for tag in results.tags]),
            waiting_seconds=dict(waiting_seconds),
            embedded=len(results.embeddings) + len(results.embedding_copies),
            has_index=has_index,
            device_class=builds.device_class,
        )
        insert_chunk(connection, header.run_id, header.shard, chunk, counts)
    return counts


def count_confidences(confidences: Sequence[float]) -> list[int]:
    """Count confidences from 0 to 1 in bins of equal width."""
    bins = Counter(min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1) for confidence in confidences)
    return [bins[number] for number in range(CONFIDENCE_BINS)]
