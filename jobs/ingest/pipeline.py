"""Run the stages of a shard in parallel. Each stage may be a limited number of batches ahead of the next."""

import logging
import threading
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
from jobs.images.decode import Decode, DecodeFailure, PreparedImage
from jobs.ingest.manifest import ShardHeader
from jobs.ingest.read import DeduplicatedBatch, Deduplicator, ImageBytes, PendingImage, fail_duplicates, read_image
from jobs.ingest.write import StageSeconds, TaggingResults, UsedBuilds, write_chunk
from jobs.models.predictor import Predictor, rank_categories
from jobs.storage.object_store import ObjectStore

log = logging.getLogger(__name__)

Resource = Literal["bucket", "decode", "forward", "database"]
RESOURCES: tuple[Resource, ...] = ("bucket", "decode", "forward", "database")
WRITERS = 6
"""Chunks written at the same time, each on a connection of its own. An insert into a live HNSW index takes 0.5 ms of
one connection."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class StageTimer:
    """Measure how long a shard is blocked on each stage.

    Only the thread that moves batches from stage to stage uses the timer. A fast stage has its batch ready when that
    thread needs it, so the thread waits only for the slowest stage.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(RESOURCES, 0.0)

    @contextmanager
    def measure(self, resource: Resource) -> Iterator[None]:
        """Count the time spent in a block as time blocked on a resource."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[resource] += time.perf_counter() - started

    def result_from(self, resource: Resource) -> Callable[["Future[_Result]"], _Result]:
        """Return a function that waits for a future and counts the wait as time blocked on a resource."""

        def wait(future: "Future[_Result]") -> _Result:
            with self.measure(resource):
                return future.result()

        return wait

    def take(self) -> dict[str, float]:
        """Return the seconds by resource since the last call, and reset them."""
        taken = {resource: round(seconds, 3) for resource, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(RESOURCES, 0.0)
        return taken


@dataclass(frozen=True)
class RunPredictor:
    """The loaded models of a run."""

    predictor: Predictor
    builds: UsedBuilds


class LapClock:
    """Measure the time from one commit to the next, in whatever order chunks are committed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.perf_counter()

    def take(self) -> float:
        """Return the seconds since the last call, or since the clock was made."""
        with self._lock:
            last, self._last = self._last, time.perf_counter()
            return self._last - last


@dataclass(frozen=True)
class PipelineSettings:
    """Limits on the work in progress: images and bytes per batch, threads for reading and predicting.

    A single image larger than ``batch_bytes`` becomes a batch of its own.
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
    """A batch with the bytes or the failure of each image."""

    chunk: int
    items: tuple[ImageBytes | ItemFailure, ...]


@dataclass(frozen=True)
class DecodedBatch:
    """A batch with the resized pixels or the failure of each pending image."""

    batch: DeduplicatedBatch
    decoded: tuple[PreparedImage | DecodeFailure, ...]


@dataclass(frozen=True)
class PredictedBatch:
    """The results of a batch, and its decode failures by content hash."""

    chunk: int
    results: TaggingResults
    failed: dict[bytes, ItemFailure]


@dataclass(frozen=True)
class FinishedChunk:
    """The results of a chunk, and the seconds blocked on each resource since the previous chunk."""

    number: int
    results: TaggingResults
    waiting_seconds: dict[str, float]


def map_ahead(
    submit: Callable[[_Item], Future[_Result]],
    items: Iterable[_Item],
    ahead: int,
    wait: Callable[[Future[_Result]], _Result],
) -> Iterator[_Result]:
    """Yield results in the order of the items, with at most ``ahead`` items in progress."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(submit(item))
        if len(pending) >= ahead:
            yield wait(pending.popleft())
    while pending:
        yield wait(pending.popleft())


def run_in(pool: Executor, work: Callable[[_Item], _Result]) -> Callable[[_Item], Future[_Result]]:
    """Return a function that submits ``work`` to a pool."""
    return lambda item: pool.submit(work, item)


class ShardPipeline:
    """Run all stages of one shard."""

    def __init__(
        self,
        store: ObjectStore,
        engine: Engine,
        header: ShardHeader,
        deduplicator: Deduplicator,
        decode: Decode,
        models: RunPredictor,
        settings: PipelineSettings,
    ) -> None:
        self._store = store
        self._engine = engine
        self._header = header
        self._deduplicator = deduplicator
        self._decode_contents = decode
        self._builds = models.builds
        self._predictor = models.predictor
        self._settings = settings
        self._laps = LapClock()
        self._timer = StageTimer()

    def run(
        self, chunks: Iterable[tuple[int, Sequence[DueImage]]], report: Callable[[int], None]
    ) -> Iterator[ChunkCounts]:
        """Tag chunks, and yield the counts of each after its commit. ``report`` receives the number of images done."""
        with ExitStack() as stack:
            self._readers = stack.enter_context(ThreadPoolExecutor(self._settings.read_threads, "read"))
            read_stage = stack.enter_context(ThreadPoolExecutor(2, "read-batch"))
            decode_stage = stack.enter_context(ThreadPoolExecutor(2, "decode-batch"))
            predict_stage = stack.enter_context(ThreadPoolExecutor(self._settings.predict_threads, "predict"))
            writers = stack.enter_context(ThreadPoolExecutor(WRITERS, "write"))
            wait_for = self._timer.result_from
            read = map_ahead(run_in(read_stage, self._read), self._batches(chunks), 3, wait_for("bucket"))
            new = map(self._deduplicate, read)
            decoded = map_ahead(run_in(decode_stage, self._decode), new, 3, wait_for("decode"))
            ahead = self._settings.predict_threads + 1
            predicted = map_ahead(run_in(predict_stage, self._predict), decoded, ahead, wait_for("forward"))
            results_by_chunk = join_chunks(report_batches(predicted, report))
            finished = (FinishedChunk(number, results, self._timer.take()) for number, results in results_by_chunk)
            # At most this many chunks are in progress, so earlier ones are committed.
            writing: deque[Future[ChunkCounts]] = deque(maxlen=WRITERS)

            def write(chunk: FinishedChunk) -> Future[ChunkCounts]:
                writing.append(writers.submit(self._write, chunk, tuple(writing)))
                return writing[-1]

            yield from map_ahead(write, finished, WRITERS + 1, wait_for("database"))

    def _batches(self, chunks: Iterable[tuple[int, Sequence[DueImage]]]) -> Iterator[Batch]:
        for number, images in chunks:
            for members in cut_batches(images, self._settings.batch_size, self._settings.batch_bytes):
                yield Batch(number, members)

    def _read(self, batch: Batch) -> ReadBatch:
        def read(image: DueImage) -> ImageBytes | ItemFailure:
            return read_image(self._store, self._header.bucket, image, self._settings.max_object_bytes)

        return ReadBatch(batch.chunk, tuple(self._readers.map(read, batch.images)))

    def _deduplicate(self, batch: ReadBatch) -> DeduplicatedBatch:
        with self._timer.measure("database"):
            return self._deduplicator.split(batch.chunk, batch.items)

    def _decode(self, batch: DeduplicatedBatch) -> DecodedBatch:
        contents = [image.source.content for image in batch.pending]
        return DecodedBatch(batch, tuple(self._decode_contents(contents)))

    def _predict(self, decoded: DecodedBatch) -> PredictedBatch:
        started = time.perf_counter()
        pairs = list(zip(decoded.batch.pending, decoded.decoded, strict=True))
        good = [(image, pixels) for image, pixels in pairs if isinstance(pixels, PreparedImage)]
        failed = {
            image.source.content_hash: _make_failure(image, failure)
            for image, failure in pairs
            if isinstance(failure, DecodeFailure)
        }
        tags, embeddings = self._run_models(good)
        results = TaggingResults(
            contents=tuple(_make_content(image, pixels) for image, pixels in good),
            tags=tags,
            embeddings=embeddings,
            failures=tuple(failed.values()),
            seconds=StageSeconds(
                decode=sum(one.seconds for one in decoded.decoded), predict=time.perf_counter() - started
            ),
        )
        return PredictedBatch(decoded.batch.chunk, decoded.batch.results + results, failed)

    def _run_models(
        self, images: Sequence[tuple[PendingImage, PreparedImage]]
    ) -> tuple[tuple[Tag, ...], tuple[Embedding, ...]]:
        """Predict the images that need both models first, then those that need only one."""
        tags: list[Tag] = []
        embeddings: list[Embedding] = []
        categories = self._predictor.categories
        for tag, embed in ((True, True), (True, False), (False, True)):
            wanted = [one for one in images if (one[0].compute_tag, one[0].compute_embedding) == (tag, embed)]
            if not wanted:
                continue
            predictions = self._predictor.predict([pixels.inputs for _, pixels in wanted], tag=tag, embed=embed)
            if predictions.probabilities is not None:
                rows = zip(wanted, predictions.probabilities, strict=True)
                tags += [_make_tag(image, row, categories) for (image, _), row in rows]
            if predictions.vectors is not None:
                vectors = zip(wanted, predictions.vectors, strict=True)
                embeddings += [_make_embedding(image, vector) for (image, _), vector in vectors]
        return tuple(tags), tuple(embeddings)

    def _write(self, chunk: FinishedChunk, earlier: Sequence[Future[ChunkCounts]]) -> ChunkCounts:
        def wait_for_earlier() -> None:
            for future in earlier:
                future.result()

        return write_chunk(
            self._engine,
            self._header,
            chunk.number,
            chunk.results,
            self._builds,
            chunk.waiting_seconds,
            self._laps.take,
            wait_for_earlier,
        )


def cut_batches(images: Iterable[DueImage], max_images: int, max_bytes: int) -> Iterator[tuple[DueImage, ...]]:
    """Split a chunk into batches by listed sizes, which do not change when a shard is resumed."""
    batch: list[DueImage] = []
    size_bytes = 0
    for image in images:
        if batch and (len(batch) == max_images or size_bytes + image.size_bytes > max_bytes):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(image)
        size_bytes += image.size_bytes
    if batch:
        yield tuple(batch)


def report_batches(batches: Iterable[PredictedBatch], report: Callable[[int], None]) -> Iterator[PredictedBatch]:
    """Report the number of images done after each batch. Log how long the process took to finish its first batch."""
    images = 0
    for number, batch in enumerate(batches):
        if number == 0:
            seconds = time.time() - psutil.Process().create_time()
            log.info("first batch predicted %.1f s after this process started", seconds)
        images += len(batch.results.contents) + len(batch.results.failures)
        report(images)
        yield batch


def join_chunks(batches: Iterable[PredictedBatch]) -> Iterator[tuple[int, TaggingResults]]:
    """Add up the batches of each chunk, in order."""
    failed: dict[bytes, ItemFailure] = {}
    for chunk, members in groupby(batches, key=lambda batch: batch.chunk):
        results = TaggingResults()
        for batch in members:
            failed |= batch.failed
            results += fail_duplicates(batch.results, failed)
        yield chunk, results


def _make_content(image: PendingImage, pixels: PreparedImage) -> SeenContent:
    source = image.source
    return SeenContent(source.image.image_id, source.image.etag, source.content_hash, pixels.width, pixels.height)


def _make_failure(image: PendingImage, failure: DecodeFailure) -> ItemFailure:
    listed = image.source.image
    return ItemFailure(listed.image_id, listed.etag, Stage.DECODE, failure.reason, failure.detail)


def _make_embedding(image: PendingImage, vector: np.ndarray) -> Embedding:
    return Embedding(image.source.image.image_id, image.source.content_hash, vector)


def _make_tag(image: PendingImage, probabilities: np.ndarray, categories: tuple[str, ...]) -> Tag:
    top_3 = rank_categories(probabilities, categories)
    return Tag(image.source.image.image_id, image.source.content_hash, *top_3[0], top_3, probabilities)
