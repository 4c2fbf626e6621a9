"""The whole ingest flow in one process: what the DAG ``catalog_ingest`` does, without Airflow."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

from jobs.connections import Connections
from jobs.settings import Settings
from jobs.tagging.discover import DiscoverSettings
from jobs.tagging.plan import Plan, PlanSettings, plan_run, preview_run
from jobs.tagging.publish import publish_run
from jobs.tagging.report import RunReport, report_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestOptions:
    """What a caller may ask of one run.

    A ``limit`` of None takes all images that are due; the ``run_id`` of a run that stopped halfway resumes it.
    """

    limit: int | None = None
    force: bool = False
    run_id: str | None = None


def preview_ingest(connections: Connections, options: IngestOptions) -> Plan:
    """What `ingest` would do now."""
    settings = connections.settings
    return preview_run(
        connections.engine,
        connections.store,
        connections.source,
        DiscoverSettings.from_settings(settings),
        plan_settings(settings, options),
    )


def plan_ingest(connections: Connections, run_id: str, options: IngestOptions) -> Plan:
    """Stages 1 and 2."""
    settings = connections.settings
    return plan_run(
        connections.engine,
        connections.store,
        run_id,
        connections.source,
        connections.artifacts,
        DiscoverSettings.from_settings(settings),
        plan_settings(settings, options),
    )


def ingest(connections: Connections, options: IngestOptions) -> RunReport:
    """Run all stages, one shard after the other, with the models loaded once.

    Raises:
        PermanentError, RetryableError: as the stages do.
    """
    run_id = options.run_id or f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    plan = plan_ingest(connections, run_id, options)
    log.info(
        "%d images are due; if this run stops halfway, `python -m jobs ingest --run %s` goes on", plan.entries, run_id
    )
    if plan.shards:
        _tag_shards(connections, run_id, plan.shards)
    publish_run(connections.engine, run_id)
    limit = connections.settings.failed_share_limit
    return report_run(connections.engine, connections.store, connections.artifacts, run_id, limit)


def _tag_shards(connections: Connections, run_id: str, shards: Sequence[int]) -> None:
    # Here, for torch takes seconds to import, and planning or a run without work does without.
    from jobs.tagging.tag_shard import TagSettings, load_predictor, tag_shard

    engine, store, settings = connections.engine, connections.store, TagSettings.from_settings(connections.settings)
    load = cache(partial(load_predictor, engine, store, settings))
    for shard in shards:
        tag_shard(engine, store, connections.artifacts, run_id, shard, settings, load)


def plan_settings(settings: Settings, options: IngestOptions) -> PlanSettings:
    """How the configuration and the caller's options cut a run."""
    return PlanSettings(settings.shard_size, settings.chunk_size, settings.max_attempts, options.force, options.limit)
