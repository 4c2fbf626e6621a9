"""Stages 3 to 6: tag one shard with the models of its run, skipping chunks that are committed already."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from jobs.database.model_versions import read_model_version
from jobs.database.tagging_runs import ChunkCounts, RunModels, read_finished_chunks, try_lock_shard
from jobs.database.tagging_work import DueImage, KnownContent, find_known_content
from jobs.errors import RetryableError, TerminatedError
from jobs.images.decode import Decode, DecodeLimits, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.ingest.manifest import Shard, decode_shard
from jobs.ingest.pipeline import PipelineSettings, ShardPipeline
from jobs.ingest.reuse import ContentRouter
from jobs.models.image_model import EngineSettings
from jobs.models.predictor import Predictor, load_predictor
from jobs.models.registry import fetch_checkpoint
from jobs.progress import Progress, open_progress
from jobs.settings import Settings
from jobs.stopping import finish_steps, is_asked_to_stop
from jobs.storage.layout import manifest_location, shard_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)

BATCH_BYTES = 16_000_000
"""Of a batch as it lies in the bucket. Up to six are in memory, read and not yet decoded: 100 MB, however large photos
are, where a usual batch has one or two."""


@dataclass(frozen=True)
class TagSettings:
    """How a shard is tagged on this machine.

    ``device`` and ``precision`` may be ``auto``; without a ``batch_size`` the device's own is taken.
    """

    device: str
    precision: str
    jpeg_decoder: str
    batch_size: int | None
    read_threads: int
    decode_processes: int
    max_object_bytes: int
    max_pixels: int
    min_side_pixels: int
    model_cache: Path

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The part of the configuration that concerns this stage."""
        images, compute = settings.images, settings.compute
        return cls(
            device=compute.device,
            precision=compute.precision,
            jpeg_decoder=compute.jpeg_decoder,
            batch_size=compute.batch_size,
            read_threads=compute.read_threads,
            decode_processes=compute.decode_processes,
            max_object_bytes=images.max_object_bytes,
            max_pixels=images.max_pixels,
            min_side_pixels=images.min_side_pixels,
            model_cache=settings.locations.model_cache,
        )


@dataclass(frozen=True)
class ShardReport:
    """What this call did; chunks that an earlier call had committed are in ``resumed_chunks`` alone."""

    run_id: str
    shard: int
    entries: int
    tagged: int
    reused: int
    failed: int
    resumed_chunks: int
    images_per_second: float


LoadPredictor = Callable[[RunModels], Predictor]


def tag_shard(
    engine: Engine,
    store: ObjectStore,
    artifacts: S3Uri,
    run_id: str,
    shard_number: int,
    settings: TagSettings,
    load: LoadPredictor,
    decode_pool: DecodePool,
) -> ShardReport:
    """Tag one shard of a planned run; called again, it goes on behind the last committed chunk.

    ``load`` is called only when there is something left to tag.

    Raises:
        RetryableError: bucket or database away, or another process is at this shard.
        TerminatedError: SIGTERM arrived; whole chunks are saved.
    """
    started = time.perf_counter()
    location = shard_location(manifest_location(artifacts, run_id), shard_number)
    shard = decode_shard(store.read(location))
    with (
        _own_shard(engine, run_id, shard_number),
        finish_steps(),
        open_progress(engine, run_id, f"tag_shard[{shard_number}]") as progress,
    ):
        with engine.connect() as connection:
            finished = read_finished_chunks(connection, run_id, shard_number)
        counts: list[ChunkCounts] = []
        if len(finished) < len(shard.chunks):
            progress.report("loading the models")
            predictor = load(shard.header.models)
            counts = _tag_chunks(engine, store, shard, finished, settings, predictor, decode_pool, progress)
        if len(finished) + len(counts) < len(shard.chunks):
            raise TerminatedError(f"stopped after {len(counts)} chunks of shard {shard_number}; run it again to go on")
    return ShardReport(
        run_id=run_id,
        shard=shard_number,
        entries=sum(chunk.entries for chunk in counts),
        tagged=sum(chunk.tagged for chunk in counts),
        reused=sum(chunk.reused for chunk in counts),
        failed=sum(chunk.failed for chunk in counts),
        resumed_chunks=len(finished),
        images_per_second=round(sum(chunk.entries for chunk in counts) / (time.perf_counter() - started), 2),
    )


def _tag_chunks(
    engine: Engine,
    store: ObjectStore,
    shard: Shard,
    finished: frozenset[int],
    settings: TagSettings,
    predictor: Predictor,
    decode_pool: DecodePool,
    progress: Progress,
) -> list[ChunkCounts]:
    limits = DecodeLimits(settings.max_pixels, settings.min_side_pixels, target_side=2 * predictor.largest_side)
    pipeline_settings = PipelineSettings(
        batch_size=settings.batch_size or predictor.batch_size,
        batch_bytes=BATCH_BYTES,
        read_threads=settings.read_threads,
        predict_threads=predictor.passes,
        max_object_bytes=settings.max_object_bytes,
    )
    left = [(number, chunk) for number, chunk in enumerate(shard.chunks) if number not in finished]
    router = ContentRouter(partial(_find_known, engine, shard))
    decode = _choose_decoder(settings, limits, predictor.geometries, decode_pool, shard.header.shard)
    pipeline = ShardPipeline(store, engine, decode, predictor, router, shard.header, pipeline_settings)
    photos = sum(map(len, shard.chunks))
    before = photos - sum(len(chunk) for _, chunk in left)

    def report(answered: int) -> None:
        progress.report("tagging", before + answered, photos)

    report(0)
    return list(pipeline.run(_until_asked(left), report))


def _choose_decoder(
    settings: TagSettings, limits: DecodeLimits, geometries: tuple[Geometry, ...], decode_pool: DecodePool, shard: int
) -> Decode:
    on_cpu = partial(decode_pool.decode, partial(prepare_image, limits=limits, geometries=geometries))
    if settings.jpeg_decoder == "cpu":
        return on_cpu
    from jobs.ingest.decode_on_gpu import GpuDecoder, require_gpu

    return GpuDecoder(require_gpu(settings.device, shard), limits, geometries, on_cpu).decode


def load_models(
    engine: Engine, store: ObjectStore, settings: TagSettings, models: RunModels, device_index: int = 0
) -> Predictor:
    """Fetch and load the versions that a run was planned with; ``device_index`` picks among several GPUs."""
    version_ids = [version_id for version_id in (models.classifier_version_id, models.encoder_version_id) if version_id]
    with engine.connect() as connection:
        versions = [read_model_version(connection, version_id) for version_id in version_ids]
    folders = {version.kind: fetch_checkpoint(store, version, settings.model_cache) for version in versions}
    how = EngineSettings(settings.device, settings.precision, device_index)
    predictor = load_predictor(folders.get("classifier"), folders["encoder"], how)
    loaded = zip(versions, predictor.models, strict=True)
    log.info("loaded %s", " and ".join(f"{v.kind} {v.model_version_id} ({model.description})" for v, model in loaded))
    return predictor


def _find_known(engine: Engine, shard: Shard, hashes: Sequence[bytes]) -> KnownContent:
    if shard.header.force:
        return KnownContent(frozenset(), frozenset())
    models = shard.header.models
    with engine.connect() as connection:
        return find_known_content(connection, hashes, models.classifier_version_id, models.space_id)


def _until_asked(chunks: Sequence[tuple[int, Sequence[DueImage]]]) -> Iterator[tuple[int, Sequence[DueImage]]]:
    for chunk in chunks:
        if is_asked_to_stop():
            return
        yield chunk


@contextmanager
def _own_shard(engine: Engine, run_id: str, shard: int) -> Iterator[None]:
    """Hold the shard for this process; the database lets go by itself when the process dies."""
    with engine.connect() as connection:
        # Detached from the pool, so that closing the connection gives up the lock whatever happened.
        connection.detach()
        is_ours = try_lock_shard(connection, run_id, shard)
        connection.commit()
        if not is_ours:
            raise RetryableError(f"another process is tagging shard {shard} of run {run_id}")
        yield
