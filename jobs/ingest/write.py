"""Stage 6: everything that is known of a chunk, in one transaction."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from jobs.database.drift_references import CONFIDENCE_BINS
from jobs.database.item_failures import ItemFailure, keep_current, record_failures, resolve_failures
from jobs.database.spaces import has_space_index
from jobs.database.tagging_results import (
    ContentCopy,
    Embedding,
    SeenContent,
    Tag,
    copy_embeddings,
    copy_tags,
    forget_answers,
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
class Outcome:
    """What became of one batch or chunk: every image is in ``contents`` or in ``failures``.

    ``tag_copies`` and ``embedding_copies`` name images whose bytes were answered before; an image that needed
    no model at all is in ``reused``.
    """

    contents: tuple[SeenContent, ...]
    tags: tuple[Tag, ...]
    embeddings: tuple[Embedding, ...]
    tag_copies: tuple[ContentCopy, ...]
    embedding_copies: tuple[ContentCopy, ...]
    failures: tuple[ItemFailure, ...]
    reused: int
    seconds: StageSeconds

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.contents + other.contents,
            self.tags + other.tags,
            self.embeddings + other.embeddings,
            self.tag_copies + other.tag_copies,
            self.embedding_copies + other.embedding_copies,
            self.failures + other.failures,
            self.reused + other.reused,
            self.seconds + other.seconds,
        )


NOTHING = Outcome((), (), (), (), (), (), 0, StageSeconds())


def write_chunk(
    engine: Engine,
    header: ShardHeader,
    chunk: int,
    outcome: Outcome,
    started: float,
    waiting_seconds: Mapping[str, float],
) -> ChunkCounts:
    """Commit a chunk and enter it in the ledger; ``started`` is `time.perf_counter` at the last commit."""
    writing = time.perf_counter()
    models = header.models
    with engine.begin() as connection:
        current = keep_current(connection, outcome.failures)
        # A run that is resumed late may find photos replaced or deleted: another run answers for those.
        superseded = len(outcome.failures) - len(current)
        outcome = replace(outcome, failures=current)
        record_contents(connection, outcome.contents)
        upsert_tags(connection, models.classifier_version_id, outcome.tags)
        copy_tags(connection, models.classifier_version_id, outcome.tag_copies)
        upsert_embeddings(connection, models.space_id, outcome.embeddings)
        copy_embeddings(connection, models.space_id, outcome.embedding_copies)
        record_failures(connection, header.run_id, outcome.failures)
        forget_answers(
            connection, [failure.image_id for failure in outcome.failures if failure.reason not in RETRYABLE_REASONS]
        )
        resolve_failures(connection, [content.image_id for content in outcome.contents])
        # Asked after writing, which keeps an index from being built until the commit.
        has_index = has_space_index(connection, models.space_id)
        now = time.perf_counter()
        counts = _count(outcome, superseded, now - writing, now - started, waiting_seconds, has_index)
        insert_chunk(connection, header.run_id, header.shard, chunk, counts)
    return counts


def _count(
    outcome: Outcome,
    superseded: int,
    write_seconds: float,
    wall_seconds: float,
    waiting_seconds: Mapping[str, float],
    has_index: bool,
) -> ChunkCounts:
    done = len(outcome.contents) + superseded
    failed = len(outcome.failures)
    return ChunkCounts(
        entries=done + failed,
        tagged=len(outcome.contents) - outcome.reused,
        reused=outcome.reused + superseded,
        failed=failed,
        failure_reasons=dict(Counter(failure.reason for failure in outcome.failures)),
        read_seconds=outcome.seconds.read,
        decode_seconds=outcome.seconds.decode,
        predict_seconds=outcome.seconds.predict,
        write_seconds=write_seconds,
        wall_seconds=wall_seconds,
        category_counts=dict(Counter(tag.category for tag in outcome.tags)),
        confidence_counts=count_confidences([tag.confidence for tag in outcome.tags]),
        waiting_seconds=dict(waiting_seconds),
        embedded=len(outcome.embeddings) + len(outcome.embedding_copies),
        has_index=has_index,
    )


def count_confidences(confidences: Sequence[float]) -> list[int]:
    """How many lie in each bin of equal width, from 0 to 1."""
    bins = Counter(min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1) for confidence in confidences)
    return [bins[number] for number in range(CONFIDENCE_BINS)]
