"""Stage 2: resolve the live models, choose the images that are due, and write the manifest."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice

from sqlalchemy import Connection, Engine

from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    read_champion,
    read_live_model,
    require_champion,
)
from jobs.database.run_history import read_recent_speed
from jobs.database.spaces import find_space, open_space
from jobs.database.tagging_runs import PlannedShard, Purpose, RunModels, TaggingRun, insert_run, lock_run, read_run
from jobs.database.tagging_work import DueImage, WorkQuery, stream_due_images
from jobs.errors import RefusedError
from jobs.failures import RETRYABLE_REASONS
from jobs.ingest.discover import DiscoverSettings, discover_images
from jobs.ingest.manifest import ShardHeader, encode_shard
from jobs.progress import open_progress
from jobs.storage.layout import manifest_location, shard_location
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanSettings:
    """How a run is cut into tasks and transactions; a ``limit`` of None takes all images that are due."""

    shard_size: int
    chunk_size: int
    max_attempts: int
    force: bool
    limit: int | None


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
        models = _read_answering_models(connection)
        space_id = find_space(connection, models.encoder.model_version_id)
        images = stream_due(connection, source, models.classifier_version_id, space_id, settings)
        due = Counter(image.reason for image in images)
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
        RefusedError: no encoder was promoted yet, too many images vanished, or the run has a plan of another kind
            or source.
    """
    with open_progress(engine, run_id, "discover") as progress, engine.begin() as connection:
        lock_run(connection, run_id)
        known = read_run(connection, run_id, "ingest")
        if known is not None:
            _require_source(known, source)
            return recall_plan(connection, known)
        discovery = discover_images(connection, store, source, discover_settings, progress)
        # After the listing was recorded: whoever switches the live models waits for this transaction, or is done.
        answering = _read_answering_models(connection)
        encoder = answering.encoder
        # Opened after the listing: it locks the partitioned table, and a listing may take minutes.
        space_id = open_space(connection, encoder.model_version_id, encoder.vector_dimensions)
        models = RunModels(answering.classifier_version_id, encoder.model_version_id, space_id)
        manifest = ManifestWriter(store, manifest_location(artifacts, run_id), settings)
        due = stream_due(connection, source, models.classifier_version_id, space_id, settings)
        manifest.write(ShardHeader(run_id, 0, source.bucket, models, settings.force), due)
        return store_plan(connection, run_id, str(source), models, manifest, "ingest", asdict(discovery))


def _require_source(run: TaggingRun, source: S3Uri) -> None:
    if run.source_uri != str(source):
        raise RefusedError(f"run {run.run_id!r} is one of {run.source_uri}, not of {source}: start another run")


@dataclass(frozen=True)
class _AnsweringModels:
    """The versions whose answers a run adds to; a catalog without a classifier gets vectors alone."""

    classifier: ModelVersion | None
    encoder: ModelVersion

    @property
    def classifier_version_id(self) -> int | None:
        return self.classifier.model_version_id if self.classifier else None


def _read_answering_models(connection: Connection) -> _AnsweringModels:
    """The live version of each kind, so that new photos are in the answers at once; before the first, the champion."""
    encoder = require_champion(connection, "encoder")
    classifier = read_champion(connection, "classifier")
    return _AnsweringModels(
        _prefer_live(connection, "classifier", classifier) if classifier else None,
        _prefer_live(connection, "encoder", encoder),
    )


def _prefer_live(connection: Connection, kind: ModelKind, champion: ModelVersion) -> ModelVersion:
    live = read_live_model(connection, kind)
    if live not in {None, champion}:
        log.warning(
            "%s %d was promoted, but is not live: run `python -m jobs retag` to bring the catalog over to it",
            kind,
            champion.model_version_id,
        )
    return live or champion


def stream_due(
    connection: Connection, place: S3Uri, classifier: int | None, space: int | None, settings: PlanSettings
) -> Iterator[DueImage]:
    """The images below a bucket and prefix that a classifier or a space has not answered; None: there is none yet."""
    query = WorkQuery(
        bucket=place.bucket,
        prefix=place.key,
        classifier=classifier,
        space=space,
        force=settings.force,
        retryable=RETRYABLE_REASONS,
        max_attempts=settings.max_attempts,
        limit=settings.limit,
    )
    return stream_due_images(connection, query)


class ManifestWriter:
    """Cuts the images of a run into shards, writes them, and keeps count."""

    def __init__(self, store: ObjectStore, location: S3Uri, settings: PlanSettings) -> None:
        self.location = location
        self.shards: list[PlannedShard] = []
        self.reasons: Counter[str] = Counter()
        self._store = store
        self._settings = settings

    def write(self, header: ShardHeader, due: Iterator[DueImage]) -> None:
        """Write the images of one bucket behind the shards that are written already."""
        chunk_size = self._settings.chunk_size
        while images := list(islice(due, self._settings.shard_size)):
            number = len(self.shards)
            content = encode_shard(replace(header, shard=number), images, chunk_size)
            self._store.write(shard_location(self.location, number), content)
            self.reasons.update(image.reason for image in images)
            self.shards.append(PlannedShard(entries=len(images), chunks=-(-len(images) // chunk_size)))


def store_plan(
    connection: Connection,
    run_id: str,
    source_uri: str,
    models: RunModels,
    manifest: ManifestWriter,
    purpose: Purpose,
    discovered: dict[str, int],
) -> Plan:
    """Enter a run whose manifest is written."""
    run = TaggingRun(
        run_id=run_id,
        source_uri=source_uri,
        manifest_uri=str(manifest.location),
        models=models,
        discovered=discovered,
        entries=manifest.reasons.total(),
        entries_by_reason=dict(manifest.reasons),
        shards=len(manifest.shards),
        purpose=purpose,
    )
    insert_run(connection, run, manifest.shards)
    return recall_plan(connection, run)


def recall_plan(connection: Connection, run: TaggingRun) -> Plan:
    """The plan of a run that has one."""
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
