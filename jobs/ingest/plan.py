"""Stage 2, plan: choose the images that are due for the live models, and write the manifest."""

import logging
import sys
from collections import Counter
from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    read_champion,
    read_live_model,
    require_champion,
)
from jobs.database.run_history import read_recent_speed
from jobs.database.spaces import find_space, open_space
from jobs.database.tagging_runs import Purpose, RunModels, TaggingRun, insert_run, lock_run, read_run
from jobs.database.tagging_work import DueImages, WorkQuery, stream_due_images
from jobs.errors import RefusedError
from jobs.failures import RETRYABLE_REASONS
from jobs.ingest.discover import discover_images
from jobs.ingest.manifest import ManifestWriter
from jobs.progress import open_progress
from jobs.storage.locations import S3Uri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestOptions:
    """Options of one run.

    ``limit`` is the maximum number of images; None means all that are due. ``retry_failed`` also retries temporary
    failures that have no attempts left. The ``run_id`` of an unfinished run resumes that run. ``keys`` limits the run
    to these images.
    """

    limit: int | None = None
    force: bool = False
    run_id: str | None = None
    retry_failed: bool = False
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RunPlan:
    """The work of a run: image counts by discovery result (new, changed, ...) and by the reason why they are due."""

    run_id: str
    source_uri: str
    discovered: dict[str, int]
    entries: int
    entries_by_reason: dict[str, int]
    estimated_seconds: float | None
    shards: list[int]


def preview_run(connections: Connections, options: IngestOptions) -> RunPlan:
    """Plan a run without storing anything: roll back all changes, and write nothing to the bucket."""
    source = connections.source
    with connections.engine.connect() as connection:
        discovery = discover_images(connection, connections)
        models = _read_live_models(connection)
        space_id = find_space(connection, models.encoder.model_version_id)
        max_attempts = connections.settings.runs.max_attempts
        due_images = stream_due(connection, source, models.classifier_version_id, space_id, max_attempts, options)
        due = Counter(image.reason for image in due_images.images)
        plan = RunPlan(
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


def plan_run(connections: Connections, run_id: str, options: IngestOptions) -> RunPlan:
    """Discover images, choose those that are due and write the manifest, in one transaction.

    If the run is already planned, return its plan.

    Raises:
        NotFoundError: no encoder was promoted yet.
        RefusedError: too many images vanished, or the run was planned for another command or source.
    """
    engine, source = connections.engine, connections.source
    with open_progress(engine, run_id, "discover") as progress, engine.begin() as connection:
        lock_run(connection, run_id)
        known = read_run(connection, run_id, "ingest")
        if known is not None:
            if known.source_uri != str(source):
                raise RefusedError(
                    f"run {run_id!r} was planned for {known.source_uri}, not for {source}. Start another run"
                )
            return read_plan(connection, known)
        discovery = discover_images(connection, connections, progress)
        return _plan_due(connection, connections, run_id, options, asdict(discovery))


def plan_keys(connections: Connections, run_id: str, options: IngestOptions, discovered: dict[str, int]) -> RunPlan:
    """Plan a run of images that were already discovered.

    Raises:
        NotFoundError: no encoder was promoted yet.
    """
    with connections.engine.begin() as connection:
        return _plan_due(connection, connections, run_id, options, discovered)


def _plan_due(
    connection: Connection,
    connections: Connections,
    run_id: str,
    options: IngestOptions,
    discovered: dict[str, int],
) -> RunPlan:
    source = connections.source
    # Read the live models after recording the listing: from then on, a switch waits for this transaction.
    live = _read_live_models(connection)
    encoder = live.encoder
    # Open the space after the listing: opening locks the partitioned table, and a listing may take minutes.
    space_id = open_space(connection, encoder.model_version_id, encoder.vector_dimensions)
    models = RunModels(live.classifier_version_id, encoder.model_version_id, space_id)
    speed = read_recent_speed(connection)
    manifest = ManifestWriter(connections, run_id, models, speed, force=options.force)
    max_attempts = connections.settings.runs.max_attempts
    due = stream_due(connection, source, models.classifier_version_id, space_id, max_attempts, options)
    manifest.write(source.bucket, due)
    return store_plan(connection, manifest, str(source), "ingest", discovered)


@dataclass(frozen=True)
class _LiveModels:
    """The versions that a run processes images with. Without a classifier, images get only vectors."""

    classifier: ModelVersion | None
    encoder: ModelVersion

    @property
    def classifier_version_id(self) -> int | None:
        return self.classifier.model_version_id if self.classifier else None


def _read_live_models(connection: Connection) -> _LiveModels:
    """Return the live version of each kind, or the champion if no version is live yet."""
    encoder = require_champion(connection, "encoder")
    classifier = read_champion(connection, "classifier")
    return _LiveModels(
        _prefer_live(connection, "classifier", classifier) if classifier else None,
        _prefer_live(connection, "encoder", encoder),
    )


def _prefer_live(connection: Connection, kind: ModelKind, champion: ModelVersion) -> ModelVersion:
    live = read_live_model(connection, kind)
    if live not in {None, champion}:
        log.warning(
            "%s %d is promoted but not live: run `catalog retag` to tag the catalog with it",
            kind,
            champion.model_version_id,
        )
    return live or champion


def stream_due(
    connection: Connection,
    folder: S3Uri,
    classifier: int | None,
    space: int | None,
    max_attempts: int,
    options: IngestOptions,
) -> DueImages:
    """Stream the images in a folder that lack a tag of the classifier or a vector in the space.

    ``classifier`` and ``space`` are None if they do not exist.
    """
    query = WorkQuery(
        bucket=folder.bucket,
        prefix=folder.key,
        classifier=classifier,
        space=space,
        force=options.force,
        retryable=RETRYABLE_REASONS,
        max_attempts=sys.maxsize if options.retry_failed else max_attempts,
        limit=options.limit,
        keys=options.keys,
    )
    return stream_due_images(connection, query)


def store_plan(
    connection: Connection, manifest: ManifestWriter, source_uri: str, purpose: Purpose, discovered: dict[str, int]
) -> RunPlan:
    """Store the plan of a run after its manifest was written."""
    run = TaggingRun(
        run_id=manifest.run_id,
        source_uri=source_uri,
        manifest_uri=str(manifest.location),
        models=manifest.models,
        discovered=discovered,
        entries=manifest.reasons.total(),
        entries_by_reason=dict(manifest.reasons),
        shards=len(manifest.shards),
        purpose=purpose,
    )
    insert_run(connection, run, manifest.shards)
    return read_plan(connection, run)


def read_plan(connection: Connection, run: TaggingRun) -> RunPlan:
    """Return the plan of a stored run."""
    return RunPlan(
        run_id=run.run_id,
        source_uri=run.source_uri,
        discovered=run.discovered,
        entries=run.entries,
        entries_by_reason=run.entries_by_reason,
        estimated_seconds=_estimate_seconds(connection, run.entries),
        shards=list(range(run.shards)),
    )


def _estimate_seconds(connection: Connection, entries: int) -> float | None:
    """Estimate the time that one process needs, from the speed of the latest chunks. None before the first run."""
    images_per_second = read_recent_speed(connection)
    return round(entries / images_per_second, 1) if images_per_second else None
