"""Stage 2: resolve the champions, choose the images that are due, and write the manifest."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice

from sqlalchemy import Connection, Engine

from jobs.database.model_versions import ModelVersion, require_champion
from jobs.database.spaces import find_space, open_space
from jobs.database.tagging_runs import PlannedShard, RunModels, TaggingRun, insert_run, read_recent_speed, read_run
from jobs.database.tagging_work import DueImage, WorkQuery, stream_due_images
from jobs.storage.layout import manifest_location, shard_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri
from jobs.tagging.discover import DiscoverSettings, discover_images
from jobs.tagging.failures import RETRYABLE_REASONS
from jobs.tagging.manifest import ShardHeader, encode_shard


@dataclass(frozen=True)
class PlanSettings:
    """How a run is cut into tasks and transactions; a ``limit`` of None takes all images that are due."""

    shard_size: int
    chunk_size: int
    max_attempts: int
    force: bool
    limit: int | None


@dataclass(frozen=True)
class Champions:
    """The versions in use at the moment of planning, each of its kind."""

    classifier: ModelVersion
    encoder: ModelVersion


@dataclass(frozen=True)
class Plan:
    """What a run will do, or would do: images by how they were found and by why they are due."""

    run_id: str
    source_uri: str
    discovered: dict[str, int]
    entries: int
    entries_by_reason: dict[str, int]
    estimated_seconds: float | None
    shards: list[int]


def preview_run(
    engine: Engine, store: ObjectStore, source: S3Uri, discover_settings: DiscoverSettings, settings: PlanSettings
) -> Plan:
    """Say what a run would do; everything is rolled back and nothing reaches the bucket."""
    with engine.connect() as connection:
        discovery = discover_images(connection, store, source, discover_settings)
        champions = _read_champions(connection)
        due = Counter(image.reason for image in _stream_due(connection, source, champions, settings))
        plan = Plan(
            run_id="",
            source_uri=str(source),
            discovered=asdict(discovery),
            entries=due.total(),
            entries_by_reason=dict(due),
            estimated_seconds=_estimate_seconds(connection, due.total()),
            shards=[],
        )
        connection.rollback()
    return plan


def plan_run(
    engine: Engine,
    store: ObjectStore,
    run_id: str,
    source: S3Uri,
    artifacts: S3Uri,
    discover_settings: DiscoverSettings,
    settings: PlanSettings,
) -> Plan:
    """Discover, choose and write the manifest in one transaction; a run that has a plan keeps it.

    Raises:
        PermanentError: no champion yet, or too many images vanished.
    """
    with engine.begin() as connection:
        known = read_run(connection, run_id)
        if known is not None:
            return _recall_plan(connection, known)
        discovery = discover_images(connection, store, source, discover_settings)
        champions = _read_champions(connection)
        encoder = champions.encoder
        due = _stream_due(connection, source, champions, settings)
        # Opened after the listing: it locks the partitioned table, and a listing may take minutes.
        space_id = open_space(connection, encoder.model_version_id, encoder.vector_dimensions)
        models = RunModels(champions.classifier.model_version_id, encoder.model_version_id, space_id)
        header = ShardHeader(run_id, 0, source.bucket, models, settings.force)
        manifest = manifest_location(artifacts, run_id)
        reasons: Counter[str] = Counter()
        shards = list(_write_shards(store, manifest, header, due, settings, reasons))
        run = TaggingRun(
            run_id, str(source), str(manifest), models, asdict(discovery), reasons.total(), dict(reasons), len(shards)
        )
        insert_run(connection, run, shards)
        return _recall_plan(connection, run)


def _read_champions(connection: Connection) -> Champions:
    return Champions(require_champion(connection, "classifier"), require_champion(connection, "encoder"))


def _stream_due(
    connection: Connection, source: S3Uri, champions: Champions, settings: PlanSettings
) -> Iterator[DueImage]:
    query = WorkQuery(
        bucket=source.bucket,
        prefix=source.key,
        classifier=champions.classifier.model_version_id,
        space=find_space(connection, champions.encoder.model_version_id),
        force=settings.force,
        retryable=RETRYABLE_REASONS,
        max_attempts=settings.max_attempts,
        limit=settings.limit,
    )
    return stream_due_images(connection, query)


def _write_shards(
    store: ObjectStore,
    manifest: S3Uri,
    header: ShardHeader,
    due: Iterator[DueImage],
    settings: PlanSettings,
    reasons: Counter[str],
) -> Iterator[PlannedShard]:
    number = 0
    while images := list(islice(due, settings.shard_size)):
        content = encode_shard(replace(header, shard=number), images, settings.chunk_size)
        store.write(shard_location(manifest, number), content)
        reasons.update(image.reason for image in images)
        yield PlannedShard(entries=len(images), chunks=-(-len(images) // settings.chunk_size))
        number += 1


def _recall_plan(connection: Connection, run: TaggingRun) -> Plan:
    return Plan(
        run_id=run.run_id,
        source_uri=run.source_uri,
        discovered=run.discovered,
        entries=run.entries,
        entries_by_reason=run.entries_by_reason,
        estimated_seconds=_estimate_seconds(connection, run.entries),
        shards=list(range(run.shards)),
    )


def _estimate_seconds(connection: Connection, entries: int) -> float | None:
    """The time of one process at the speed of the latest chunks, or None before the first run."""
    images_per_second = read_recent_speed(connection)
    return round(entries / images_per_second, 1) if images_per_second else None
