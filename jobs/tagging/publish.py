"""Stage 7: make what was tagged findable: product tags, the vector index, the live space."""

import logging
from dataclasses import dataclass

from sqlalchemy import Engine

from jobs.database.model_versions import require_champion
from jobs.database.product_tags import renew_product_tags
from jobs.database.spaces import count_missing_vectors, create_space_index, find_live_space, make_space_live
from jobs.database.tagging_runs import read_run
from jobs.errors import PermanentError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishReport:
    """``missing_vectors`` counts live images that the run's space still lacks, failures left out."""

    run_id: str
    products_renewed: int
    space_id: int
    is_space_live: bool
    missing_vectors: int


def publish_run(engine: Engine, run_id: str) -> PublishReport:
    """Publish a run; harmless when repeated.

    The space of a new encoder goes live only when it is complete, so that no answer loses images by the
    switch; the very first space goes live as it is, since any answer beats none.

    Raises:
        PermanentError: the run was never planned.
    """
    with engine.connect() as connection:
        run = read_run(connection, run_id)
    if run is None:
        raise PermanentError(f"run {run_id!r} was never planned")
    with engine.begin() as connection:
        renewed = renew_product_tags(connection, run.models.classifier_version_id)
    space_id = run.models.space_id
    with engine.begin() as connection:
        create_space_index(connection, space_id)
    with engine.begin() as connection:
        missing = count_missing_vectors(connection, space_id)
        live = find_live_space(connection)
        # An old run that is published again must not bring back the space of an encoder that was replaced.
        encoder = require_champion(connection, "encoder")
        is_current = encoder.model_version_id == run.models.encoder_version_id
        if live is None or (live != space_id and missing == 0 and is_current):
            make_space_live(connection, space_id)
            live = space_id
    if live != space_id and missing:
        log.warning(
            "space %d is not searchable yet: %d images are missing in it; run ingest for every source, without a limit",
            space_id,
            missing,
        )
    return PublishReport(run_id, renewed, space_id, live == space_id, missing)
