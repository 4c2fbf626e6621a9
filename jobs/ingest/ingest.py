"""Run the whole ingest flow in one process, like the DAG ``catalog_ingest`` but without Airflow."""

import logging
from datetime import UTC, datetime

from jobs.connections import Connections
from jobs.database.tagging_runs import require_run
from jobs.embedding_map.draw import try_to_draw_map
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.publish import publish_run
from jobs.ingest.report import RunReport, report_run
from jobs.ingest.tag_shard import ShardTagger

log = logging.getLogger(__name__)


def ingest(connections: Connections, options: IngestOptions) -> RunReport:
    """Run all stages, one shard after another. Load the models once.

    Raises:
        PermanentError: the run to resume was never planned, or a stage raised it.
        RetryableError: a stage raised it.
    """
    if options.run_id:
        with connections.engine.connect() as connection:
            require_run(connection, options.run_id, "ingest")
    run_id = options.run_id or f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    plan = plan_run(connections, run_id, options)
    log.info("%d images are due. To resume this run, use `catalog ingest --run %s`", plan.entries, run_id)
    ShardTagger(connections).tag(run_id, plan.shards)
    publish_run(connections.engine, run_id)
    report = report_run(connections, run_id)
    try_to_draw_map(connections.engine, run_id)
    return report
