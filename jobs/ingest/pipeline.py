"""Overlap the stages of a shard: each runs ahead of the next by a bounded number of bytes."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

import numpy as np
import psutil
from sqlalchemy import Engine

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_results import Embedding, SeenContent, Tag
from jobs.database.tagging_runs import ChunkCounts
from jobs.database.tagging_work import DueImage
from jobs.failures import Stage
from jobs.images.decode import Decode, DecodeFault, PreparedImage
from jobs.ingest.manifest import ShardHeader
from jobs.ingest.read import ImageBytes, read_image
from jobs.ingest.reuse import ContentRouter, FreshImage, RoutedBatch, fail_twins
from jobs.ingest.write import NOTHING, Outcome, StageSeconds, write_chunk
from jobs.models.predictor import Predictor, rank_categories
from jobs.storage.object_store import ObjectStore

Resource = Literal["bucket", "decode", "forward", "database"]
RESOURCES: tuple[Resource, ...] = ("bucket", "decode", "forward", "database")
Result = TypeVar("Result")


class Waiting:
    """A stopwatch for each resource, read by the thread that moves batches from stage to stage, and by no other.

    Stages that keep up have their batches ready when that thread asks for them; it waits for the slowest.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(RESOURCES, 0.0)

    @contextmanager
    def measure(self, resource: Resource) -> Iterator[None]:
        """Count the time of a block as waiting for a resource."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[resource] += time.perf_counter() - started

    def result_from(self, resource: Resource) -> Callable[["Future[Result]"], Result]:
        """Wait for a future that a resource has to finish."""

        def wait(future: "Future[Result]") -> Result:
            with self.measure(resource):
                return future.result()

        return wait

    def take(self) -> dict[str, float]:
        """The seconds by resource since this was last asked for."""
        taken = {resource: round(seconds, 3) for resource, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(RESOURCES, 0.0)
        return taken


log = logging.getLogger(__name__)

Item = TypeVar("Item")
Prepared = tuple[FreshImage, PreparedImage]


@dataclass(frozen=True)
class PipelineSettings:
    """How much is in flight: images in a batch and their bytes together, and workers of each kind.

    A single image may have more bytes than a batch; it is a batch of its own then.
    """

    batch_size: int
    batch_bytes: int
    read_threads: int
    predict_threads: int
    max_object_bytes: int


@dataclass(frozen=True)
class Batch:
    """Images that are read, decoded and predicted together."""

    chunk: int
    images: tuple[DueImage, ...]


@dataclass(frozen=True)
class ReadBatch:
    """A batch with the bytes, or the fault, of each of its images."""

    chunk: int
    items: tuple[ImageBytes | ItemFailure, ...]


@dataclass(frozen=True)
class DecodedBatch:
    """A routed batch with the resized pixels, or the fault, of each of its fresh images."""

    routed: RoutedBatch
    decoded: tuple[PreparedImage | DecodeFault, ...]


@dataclass(frozen=True)
class PredictedBatch:
    """A finished batch, and the hashes of the bytes that failed in it."""

    chunk: int
    outcome: Outcome
    failed: dict[bytes, ItemFailure]


@dataclass(frozen=True)
class FinishedChunk:
    """All that is known of a chunk, and what was waited for since the one before it, in seconds by resource."""

    number: int
    outcome: Outcome
    waiting_seconds: dict[str, float]


def map_ahead(
    submit: Callable[[Item], Future[Result]],
    items: Iterable[Item],
    ahead: int,
    wait: Callable[[Future[Result]], Result],
) -> Iterator[Result]:
    """Yield results in the order of the items, with at most ``ahead`` of them under way; ``wait`` waits for one."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(submit(item))
        if len(pending) >= ahead:
            yield wait(pending.popleft())
    while pending:
        yield wait(pending.popleft())


def run_in(pool: Executor, work: Callable[[Item], Result]) -> Callable[[Item], Future[Result]]:
    """The same work, as a future of a pool."""
    return lambda item: pool.submit(work, item)


class ShardPipeline:
    """The collaborators of one shard, each passed in."""

    def __init__(
        self,
        store: ObjectStore,
        engine: Engine,
        decode: Decode,
        predictor: Predictor,
        router: ContentRouter,
        header: ShardHeader,
        settings: PipelineSettings,
    ) -> None:
        self._store = store
        self._engine = engine
        self._decode_contents = decode
        self._predictor = predictor
        self._router = router
        self._header = header
        self._settings = settings
        self._committed_at = time.perf_counter()
        self._waiting = Waiting()

    def run(
        self, chunks: Iterable[tuple[int, Sequence[DueImage]]], report: Callable[[int], None] = lambda _: None
    ) -> Iterator[ChunkCounts]:
        """Tag chunks and yield the counts of each once it is committed; ``report`` gets the photos answered so far."""
        with ExitStack() as stack:
            self._readers = stack.enter_context(ThreadPoolExecutor(self._settings.read_threads, "read"))
            read_stage = stack.enter_context(ThreadPoolExecutor(2, "read-batch"))
            decode_stage = stack.enter_context(ThreadPoolExecutor(2, "decode-batch"))
            predict_stage = stack.enter_context(ThreadPoolExecutor(self._settings.predict_threads, "predict"))
            writer = stack.enter_context(ThreadPoolExecutor(1, "write"))
            wait_for = self._waiting.result_from
            read = map_ahead(run_in(read_stage, self._read), self._batches(chunks), 3, wait_for("bucket"))
            decoded = map_ahead(run_in(decode_stage, self._decode), map(self._route, read), 3, wait_for("decode"))
            ahead = self._settings.predict_threads + 1
            predicted = map_ahead(run_in(predict_stage, self._predict), decoded, ahead, wait_for("forward"))
            outcomes = join_chunks(count_photos(announce_first(predicted), report))
            finished = (FinishedChunk(number, outcome, self._waiting.take()) for number, outcome in outcomes)
            yield from map_ahead(run_in(writer, self._write), finished, 2, wait_for("database"))

    def _batches(self, chunks: Iterable[tuple[int, Sequence[DueImage]]]) -> Iterator[Batch]:
        for number, images in chunks:
            for members in cut_batches(images, self._settings.batch_size, self._settings.batch_bytes):
                yield Batch(number, members)

    def _read(self, batch: Batch) -> ReadBatch:
        def read(image: DueImage) -> ImageBytes | ItemFailure:
            return read_image(self._store, self._header.bucket, image, self._settings.max_object_bytes)

        return ReadBatch(batch.chunk, tuple(self._readers.map(read, batch.images)))

    def _route(self, batch: ReadBatch) -> RoutedBatch:
        with self._waiting.measure("database"):
            return self._router.route(batch.chunk, batch.items)

    def _decode(self, routed: RoutedBatch) -> DecodedBatch:
        contents = [image.source.content for image in routed.fresh]
        return DecodedBatch(routed, tuple(self._decode_contents(contents)))

    def _predict(self, batch: DecodedBatch) -> PredictedBatch:
        started = time.perf_counter()
        pairs = list(zip(batch.routed.fresh, batch.decoded, strict=True))
        good = [(image, decoded) for image, decoded in pairs if isinstance(decoded, PreparedImage)]
        failed = {
            image.source.content_hash: _decode_failure(image, decoded)
            for image, decoded in pairs
            if isinstance(decoded, DecodeFault)
        }
        tags, embeddings = self._answer(good)
        outcome = Outcome(
            contents=tuple(_seen(image, decoded) for image, decoded in good),
            tags=tags,
            embeddings=embeddings,
            tag_copies=(),
            embedding_copies=(),
            failures=tuple(failed.values()),
            reused=0,
            seconds=StageSeconds(
                decode=sum(decoded.seconds for decoded in batch.decoded), predict=time.perf_counter() - started
            ),
        )
        return PredictedBatch(batch.routed.chunk, batch.routed.settled + outcome, failed)

    def _answer(self, images: Sequence[Prepared]) -> tuple[tuple[Tag, ...], tuple[Embedding, ...]]:
        """Ask for those that need both models, and then for those that need one of them."""
        tags: list[Tag] = []
        embeddings: list[Embedding] = []
        categories = self._predictor.categories
        for tag, embed in ((True, True), (True, False), (False, True)):
            wanted = [one for one in images if (one[0].compute_tag, one[0].compute_embedding) == (tag, embed)]
            if not wanted:
                continue
            answers = self._predictor.predict([decoded.inputs for _, decoded in wanted], tag=tag, embed=embed)
            if answers.probabilities is not None:
                rows = zip(wanted, answers.probabilities, strict=True)
                tags += [_tag(image, row, categories) for (image, _), row in rows]
            if answers.vectors is not None:
                vectors = zip(wanted, answers.vectors, strict=True)
                embeddings += [_embedding(image, vector) for (image, _), vector in vectors]
        return tuple(tags), tuple(embeddings)

    def _write(self, chunk: FinishedChunk) -> ChunkCounts:
        counts = write_chunk(
            self._engine, self._header, chunk.number, chunk.outcome, self._committed_at, chunk.waiting_seconds
        )
        self._committed_at = time.perf_counter()
        return counts


def cut_batches(images: Iterable[DueImage], most_images: int, most_bytes: int) -> Iterator[tuple[DueImage, ...]]:
    """Cut a chunk by what the listing says, and by nothing that differs when the shard is resumed."""
    batch: list[DueImage] = []
    size_bytes = 0
    for image in images:
        if batch and (len(batch) == most_images or size_bytes + image.size_bytes > most_bytes):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(image)
        size_bytes += image.size_bytes
    if batch:
        yield tuple(batch)


def announce_first(batches: Iterable[PredictedBatch]) -> Iterator[PredictedBatch]:
    """Say how long it took until a first batch was answered: imports, models, processes and one pass of each stage."""
    for number, batch in enumerate(batches):
        if number == 0:
            log.info("first batch was answered %.1f s after this process started", time.time() - _read_start())
        yield batch


def count_photos(batches: Iterable[PredictedBatch], report: Callable[[int], None]) -> Iterator[PredictedBatch]:
    """Report after each batch how many photos were answered or failed so far."""
    photos = 0
    for batch in batches:
        photos += len(batch.outcome.contents) + len(batch.outcome.failures)
        report(photos)
        yield batch


def join_chunks(batches: Iterable[PredictedBatch]) -> Iterator[tuple[int, Outcome]]:
    """Add the batches of each chunk up, in order."""
    failed: dict[bytes, ItemFailure] = {}
    for chunk, members in groupby(batches, key=lambda batch: batch.chunk):
        outcome = NOTHING
        for batch in members:
            failed |= batch.failed
            outcome += fail_twins(batch.outcome, failed)
        yield chunk, outcome


def _read_start() -> float:
    started: float = psutil.Process().create_time()
    return started


def _seen(image: FreshImage, decoded: PreparedImage) -> SeenContent:
    source = image.source
    return SeenContent(source.image.image_id, source.image.etag, source.content_hash, decoded.width, decoded.height)


def _decode_failure(image: FreshImage, fault: DecodeFault) -> ItemFailure:
    listed = image.source.image
    return ItemFailure(listed.image_id, listed.etag, Stage.DECODE, fault.reason, fault.detail)


def _embedding(image: FreshImage, vector: np.ndarray) -> Embedding:
    return Embedding(image.source.image.image_id, image.source.content_hash, vector)


def _tag(image: FreshImage, probabilities: np.ndarray, categories: tuple[str, ...]) -> Tag:
    top_3 = rank_categories(probabilities, categories)
    return Tag(image.source.image.image_id, image.source.content_hash, *top_3[0], top_3, probabilities)
