"""Stage 7, publish: update product tags, build the vector index, and make the first space live."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from jobs.database.changes import delete_old_changes
from jobs.database.model_coverage import count_unprocessed
from jobs.database.model_versions import read_live_model
from jobs.database.products import renew_product_tags
from jobs.database.spaces import create_space_index, find_live_space, lock_spaces, make_space_live
from jobs.database.tagging_runs import TaggingRun, require_run
from jobs.database.vector_codes import renew_vector_codes
from jobs.progress import Progress, open_progress


@dataclass(frozen=True)
class PublishReport:
    """The result of `publish_run`. ``missing_vectors`` counts images without a vector, excluding failed ones."""

    run_id: str
    products_renewed: int
    space_id: int
    is_space_live: bool
    missing_vectors: int


def publish_run(engine: Engine, run_id: str) -> PublishReport:
    """Publish a run. Safe to repeat.

    The first space of a catalog goes live even if it is incomplete. Later spaces go live after a retag has filled
    them.

    Raises:
        PermanentError: the run was never planned.
    """
    with engine.connect() as connection:
        run = require_run(connection, run_id, "ingest")
        live_classifier = read_live_model(connection, "classifier")
    # A retag may have switched the classifier since the run was planned. Failed images lost the tags of both.
    classifiers = {run.models.classifier_version_id, live_classifier.model_version_id if live_classifier else None}
    with open_progress(engine, run_id, "publish") as progress:
        return _publish(engine, run, sorted(filter(None, classifiers)), progress)


def _publish(engine: Engine, run: TaggingRun, classifiers: Sequence[int], progress: Progress) -> PublishReport:
    progress.report("renewing product tags")
    renewed = sum(_renew_product_tags(engine, classifier) for classifier in classifiers)
    progress.report("building the vector index")
    space_id = run.models.space_id
    with engine.begin() as connection:
        create_space_index(connection, space_id)
    with engine.begin() as connection:
        lock_spaces(connection)
        live = find_live_space(connection)
        if live is None:
            make_space_live(connection, space_id)
            live = space_id
    progress.report("renewing the codes of vectors")
    with engine.begin() as connection:
        renew_vector_codes(connection, live)
    with engine.begin() as connection:
        delete_old_changes(connection)
    with engine.connect() as connection:
        missing = count_unprocessed(connection, classifier=None, space=space_id)
    return PublishReport(run.run_id, renewed, space_id, live == space_id, missing)


def _renew_product_tags(engine: Engine, classifier_version_id: int) -> int:
    with engine.begin() as connection:
        return renew_product_tags(connection, classifier_version_id)
