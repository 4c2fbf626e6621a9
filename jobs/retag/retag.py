"""Process the whole catalog with the champions while the live models keep serving, then switch to the champions.

A retag plans shards as the ingest flow does, but from all images in the catalog instead of a listing. Top-ups tag the
images that arrive in the meantime, until none is missing.
"""

import logging
from datetime import UTC, datetime

from jobs.connections import Connections
from jobs.database.model_versions import read_champion
from jobs.database.spaces import open_space
from jobs.database.tagging_runs import RunModels, read_run
from jobs.embedding_map.draw import try_to_draw_map
from jobs.ingest.plan import RunPlan, read_plan
from jobs.ingest.tag_shard import ShardTagger
from jobs.retag.complete import RetagReport, complete_with, plan_missing_images

log = logging.getLogger(__name__)


def retag(connections: Connections, run_id: str | None = None) -> RetagReport:
    """Retag the whole catalog in one process. The ``run_id`` of an interrupted run resumes that run.

    Raises:
        RetryableError, RefusedError: as in `complete_retag`.
    """
    run_id = run_id or f"retag-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    plan = plan_retag(connections, run_id)
    log.info(
        "retagging %d images; if this run is interrupted, `catalog retag --run %s` resumes it",
        plan.entries,
        run_id,
    )
    tagger = ShardTagger(connections)
    tagger.tag(run_id, plan.shards)
    report = complete_with(tagger, connections, run_id)
    try_to_draw_map(connections.engine, run_id)
    return report


def plan_retag(connections: Connections, run_id: str) -> RunPlan:
    """Write the manifest of all images that the champions have not processed. If it is planned, return its plan.

    Without a champion encoder, return an empty plan and store nothing.
    """
    with connections.engine.begin() as connection:
        known = read_run(connection, run_id, "retag")
        if known is not None:
            return read_plan(connection, known)
        classifier, encoder = read_champion(connection, "classifier"), read_champion(connection, "encoder")
        if encoder is None:
            return RunPlan(run_id, "", {}, 0, {}, None, [])
        # In its own transaction: creating a space blocks writes to catalog.images until the transaction ends.
        space_id = open_space(connection, encoder.model_version_id, encoder.vector_dimensions)
    models = RunModels(classifier.model_version_id if classifier else None, encoder.model_version_id, space_id)
    return plan_missing_images(connections, run_id, models)
