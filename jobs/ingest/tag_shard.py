"""Run stages 3 to 6 for one shard with the models of its run, skipping committed chunks."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

from sqlalchemy import Engine

from jobs.connections import Connections
from jobs.database.model_versions import read_model_version
from jobs.database.tagging_runs import ChunkCounts, RunModels, read_finished_chunks, try_lock_shard
from jobs.database.tagging_work import DueImage, KnownContent, find_known_content
from jobs.errors import RetryableError, TerminatedError
from jobs.images.decode import MIN_SIDE_PIXELS, Decode, DecodeLimits, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.ingest.manifest import Shard, decode_shard
from jobs.ingest.pipeline import PipelineSettings, RunPredictor, ShardPipeline
from jobs.ingest.read import Deduplicator
from jobs.ingest.write import UsedBuilds
from jobs.models.builds import fetch_build
from jobs.models.engine import EngineSettings
from jobs.models.predictor import Predictor, load_predictor
from jobs.progress import Progress, open_progress
from jobs.stopping import finish_steps, is_stop_requested
from jobs.storage.locations import manifest_location, shard_location

log = logging.getLogger(__name__)

MIN_BATCH_BYTES = 16_000_000
BATCH_BYTES_PER_IMAGE = 500_000
"""Maximum size of the files in a batch, for each image that a full batch has. Up to six batches are in memory between
reading and decoding, so they take at most 100 MB on a CPU and 800 MB on a GPU, however large the images are."""

LoadModels = Callable[[RunModels], RunPredictor]


@dataclass(frozen=True)
class ShardReport:
    """The results of one call. Chunks that an earlier call committed count only in ``resumed_chunks``."""

    run_id: str
    shard: int
    entries: int
    tagged: int
    reused: int
    failed: int
    resumed_chunks: int
    images_per_second: float


class ShardTagger:
    """Tag shards in one process. Load each pair of models once. ``device_index`` selects one of several GPUs."""

    def __init__(self, connections: Connections, device_index: int = 0) -> None:
        self._connections = connections
        # A process that watches events must not keep the models of before a switch.
        self._load = lru_cache(maxsize=1)(partial(_load_models, connections, device_index))

    def tag(self, run_id: str, shards: Sequence[int]) -> list[ShardReport]:
        """Tag shards of a planned run. Skip finished shards at almost no cost.

        Raises:
            RetryableError, PermanentError, TerminatedError: as in `tag_shard`.
        """
        if not shards:
            return []
        with finish_steps(), DecodePool(self._connections.settings.compute.decode_processes) as decode_pool:
            return [tag_shard(self._connections, run_id, shard, self._load, decode_pool) for shard in shards]


def tag_shard(
    connections: Connections, run_id: str, shard_number: int, load: LoadModels, decode_pool: DecodePool
) -> ShardReport:
    """Tag those chunks of a shard that are not committed yet. Call ``load`` only if there are any.

    Raises:
        RetryableError: the bucket or database is unavailable, or another process is tagging this shard.
        TerminatedError: SIGTERM arrived. All started chunks are committed.
    """
    started = time.perf_counter()
    engine = connections.engine
    location = shard_location(manifest_location(connections.artifacts, run_id), shard_number)
    shard = decode_shard(connections.store.read(location))
    with (
        _lock_shard(engine, run_id, shard_number),
        finish_steps(),
        open_progress(engine, run_id, f"tag_shard[{shard_number}]") as progress,
    ):
        with engine.connect() as connection:
            finished = read_finished_chunks(connection, run_id, shard_number)
        counts: list[ChunkCounts] = []
        if len(finished) < len(shard.chunks):
            progress.report("loading the models")
            pipeline = _make_pipeline(connections, shard, load(shard.header.models), decode_pool)
            counts = _tag_chunks(pipeline, shard, finished, progress)
        if len(finished) + len(counts) < len(shard.chunks):
            raise TerminatedError(f"stopped after {len(counts)} chunks of shard {shard_number}. Run it again to resume")
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


@contextmanager
def _lock_shard(engine: Engine, run_id: str, shard: int) -> Iterator[None]:
    """Lock the shard for this process. The database releases the lock when the process dies."""
    with engine.connect() as connection:
        # Detach from the pool, so closing the connection always releases the lock.
        connection.detach()
        is_locked = try_lock_shard(connection, run_id, shard)
        connection.commit()
        if not is_locked:
            raise RetryableError(f"another process is tagging shard {shard} of run {run_id}")
        yield


def _make_pipeline(
    connections: Connections, shard: Shard, models: RunPredictor, decode_pool: DecodePool
) -> ShardPipeline:
    settings, predictor = connections.settings, models.predictor
    batch_size = settings.compute.batch_size or predictor.batch_size
    return ShardPipeline(
        connections.store,
        connections.engine,
        shard.header,
        Deduplicator(partial(_find_known, connections.engine, shard)),
        _make_decoder(connections, predictor, decode_pool),
        models,
        PipelineSettings(
            batch_size=batch_size,
            batch_bytes=max(MIN_BATCH_BYTES, batch_size * BATCH_BYTES_PER_IMAGE),
            read_threads=settings.compute.read_threads,
            predict_threads=predictor.passes,
            max_object_bytes=settings.images.max_object_bytes,
        ),
    )


def _make_decoder(connections: Connections, predictor: Predictor, decode_pool: DecodePool) -> Decode:
    target_side = 2 * predictor.largest_side
    limits = DecodeLimits(connections.settings.images.max_pixels, MIN_SIDE_PIXELS, target_side)
    prepare = partial(prepare_image, limits=limits, geometries=predictor.geometries)
    return partial(decode_pool.decode, prepare)


def _tag_chunks(
    pipeline: ShardPipeline, shard: Shard, finished: frozenset[int], progress: Progress
) -> list[ChunkCounts]:
    remaining = [(number, chunk) for number, chunk in enumerate(shard.chunks) if number not in finished]
    images = sum(map(len, shard.chunks))
    committed = images - sum(len(chunk) for _, chunk in remaining)

    def report(tagged: int) -> None:
        progress.report("tagging", committed + tagged, images)

    report(0)
    return list(pipeline.run(_until_stopped(remaining), report))


def _until_stopped(chunks: Sequence[tuple[int, Sequence[DueImage]]]) -> Iterator[tuple[int, Sequence[DueImage]]]:
    for chunk in chunks:
        if is_stop_requested():
            return
        yield chunk


def _find_known(engine: Engine, shard: Shard, hashes: Sequence[bytes]) -> KnownContent:
    if shard.header.force:
        return KnownContent(frozenset(), frozenset())
    models = shard.header.models
    with engine.connect() as connection:
        return find_known_content(connection, hashes, models.classifier_version_id, models.space_id)


def _load_models(connections: Connections, device_index: int, models: RunModels) -> RunPredictor:
    """Fetch and load the builds of the versions that a run was planned with."""
    settings = connections.settings
    version_ids = [version_id for version_id in (models.classifier_version_id, models.encoder_version_id) if version_id]
    with connections.engine.connect() as connection:
        versions = [read_model_version(connection, version_id) for version_id in version_ids]
    fetched = {version.kind: fetch_build(connections, version) for version in versions}
    builds = {kind: build.build_id for kind, (build, _) in fetched.items()}
    folders = {kind: folder for kind, (_, folder) in fetched.items()}
    compute = settings.compute
    engine_settings = EngineSettings(compute.device, compute.precision, device_index, batch_size=compute.batch_size)
    predictor = load_predictor(folders.get("classifier"), folders["encoder"], engine_settings)
    loaded = zip(versions, predictor.models, strict=True)
    log.info("loaded %s", " and ".join(f"{v.kind} {v.model_version_id} ({model.description})" for v, model in loaded))
    return RunPredictor(predictor, UsedBuilds(builds.get("classifier"), builds["encoder"], predictor.device_class))
