"""The whole ingest flow in one process: what the DAG ``catalog_ingest`` does, without Airflow."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from jobs.connections import Connections
from jobs.database.tagging_runs import require_run
from jobs.ingest.discover import DiscoverSettings
from jobs.ingest.drift import DriftSettings
from jobs.ingest.plan import Plan, PlanSettings, plan_run, preview_run
from jobs.ingest.publish import publish_run
from jobs.ingest.report import RunReport, report_run
from jobs.ingest.shard_tagger import ShardTagger
from jobs.settings import Settings

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
        PermanentError: a run to resume was never planned, and as the stages do.
        RetryableError: as the stages do.
    """
    if options.run_id:
        with connections.engine.connect() as connection:
            require_run(connection, options.run_id, "ingest")
    run_id = options.run_id or f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    plan = plan_ingest(connections, run_id, options)
    log.info(
        "%d images are due; if this run stops halfway, `python -m jobs ingest --run %s` goes on", plan.entries, run_id
    )
    ShardTagger(connections).tag(run_id, plan.shards)
    publish_run(connections.engine, run_id)
    limit, drift = connections.settings.runs.failed_share_limit, DriftSettings.from_settings(connections.settings)
    return report_run(connections.engine, connections.store, connections.artifacts, run_id, limit, drift)


def plan_settings(settings: Settings, options: IngestOptions) -> PlanSettings:
    """How the configuration and the caller's options cut a run."""
    return PlanSettings(
        settings.compute.shard_size,
        settings.compute.chunk_size,
        settings.runs.max_attempts,
        options.force,
        options.limit,
    )
