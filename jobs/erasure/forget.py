"""Erase images and everything that was made from them, except models that learned from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.erasure import (
    CatalogImage,
    LearnedModel,
    count_unwritten_erasures,
    delete_images,
    find_contents,
    find_images,
    find_shared_contents,
    finish_erasure,
    list_learned_models,
    rewrite_tables,
    start_erasure,
)
from jobs.database.examples import lock_split_memory
from jobs.database.job_progress import list_running_jobs
from jobs.erasure.artifacts import ErasureTarget, erase_from_artifacts, find_snapshots
from jobs.errors import NotFoundError, RefusedError
from jobs.progress import Progress, show_progress
from jobs.retrain.train.train import delete_interrupted
from jobs.scratch import open_scratch
from jobs.storage.locations import S3Uri

REMAINING = (
    "models that learned from the images: they keep what they learned, and outputs for up to 32 images of their "
    "validation split; train and promote new ones, then delete the old folders below models/ and builds/",
    "the write-ahead log and backups of Postgres, and old object versions of a versioned bucket, until they expire",
    "the ids of the products in the change feed, for 30 days; copies in exports and at receivers of webhooks, until "
    "they apply the deletion",
    "logs and XComs of Airflow: `airflow db clean`; the shop's products.csv; other workers' interrupted trainings: "
    "run `catalog forget` there",
)
"""What `forget_images` cannot erase, and what to do about it."""


@dataclass(frozen=True)
class ForgetReport:
    """The result of an erasure. ``rows`` counts deleted rows by table, ``files`` changed and deleted artifacts.

    ``same_bytes`` names other images and labels with the same bytes, which stay. ``is_rewritten`` says that no stale
    byte is left in the files of the tables.
    """

    images: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    snapshots: tuple[str, ...] = ()
    models: tuple[LearnedModel, ...] = ()
    same_bytes: tuple[str, ...] = ()
    interrupted_trainings: int = 0
    is_rewritten: bool = False
    remaining: tuple[str, ...] = ()


def forget_images(connections: Connections, names: Sequence[str], *, rewrite: bool = True) -> ForgetReport:
    """Erase the images with these keys, and all images of these products. Safe to repeat after a kill.

    Files are cleaned before the rows are deleted by which they are found. Without names, finish earlier erasures:
    delete interrupted trainings on this machine, and rewrite the tables.

    Raises:
        NotFoundError: the catalog has no image or product with a name.
        RefusedError: an object still exists, so the next run would add it again; or jobs are running.
        RetryableError: the bucket or database is unavailable, or an older transaction still sees the deleted rows.
    """
    with show_progress("forget") as progress:
        images = _find_images(connections, names)
        if images:
            _require_gone(connections, images)
            report = _erase(connections, images, progress)
        else:
            report = ForgetReport()
        # Images that were decoded for trainings, and temporary files of killed jobs.
        trainings = delete_interrupted(connections.settings.locations.model_cache)
        with open_scratch():
            pass
        if rewrite and _has_stale_bytes(connections):
            with connections.engine.connect() as connection:
                _require_no_jobs(connection)
            progress.report("rewriting the files of the tables")
            rewrite_tables(connections.engine)
    return replace(report, interrupted_trainings=trainings, is_rewritten=not _has_stale_bytes(connections))


def _find_images(connections: Connections, names: Sequence[str]) -> list[CatalogImage]:
    with connections.engine.connect() as connection:
        found = {name: find_images(connection, name) for name in names}
    if unknown := [name for name, images in found.items() if not images]:
        raise NotFoundError(
            f"the catalog has no image or product {unknown[0]!r}, so there is nothing to erase: it was erased before, "
            "or the name is wrong. To finish earlier erasures, run `catalog forget` without names"
        )
    return list({image.image_id: image for images in found.values() for image in images}.values())


def _require_gone(connections: Connections, images: Sequence[CatalogImage]) -> None:
    locations = [S3Uri(image.bucket, image.object_key) for image in images]
    existing = [location for location in locations if connections.store.exists(location)]
    if existing:
        raise RefusedError(
            f"{len(existing)} of {len(images)} images still exist in the bucket, the first is {existing[0]}: delete "
            "them there first, because the next run would add them again. Nothing was erased"
        )


def _erase(connections: Connections, images: Sequence[CatalogImage], progress: Progress) -> ForgetReport:
    """Clean the artifacts, then delete the rows. A kill in between leaves the rows, by which a repetition starts."""
    with connections.engine.begin() as connection:
        _require_no_jobs(connection)
        contents = find_contents(connection, images)
        shared = find_shared_contents(connection, images, sorted(contents))
        target = ErasureTarget(
            tuple(images),
            contents=frozenset(content.hex() for content in contents),
            kept_examples=frozenset(one.content_hash.hex() for one in shared if one.is_example),
        )
        snapshots = find_snapshots(connections, target, progress)
        erasure_id = start_erasure(connection, images, snapshots)
    with connections.engine.begin() as connection:
        lock_split_memory(connection)
        files = erase_from_artifacts(connections, target, snapshots, progress)
        progress.report("deleting the rows")
        rows = delete_images(connection, images, sorted(contents - {one.content_hash for one in shared}))
        _require_no_jobs(connection)
        learned = finish_erasure(connection, erasure_id)
        return ForgetReport(
            images=len(images),
            rows=rows,
            files=files,
            snapshots=learned,
            models=tuple(list_learned_models(connection, learned)),
            same_bytes=tuple(one.place for one in shared),
            remaining=REMAINING,
        )


def _require_no_jobs(connection: Connection) -> None:
    """Check that no job is running, which could write the key of an image again.

    Raises:
        RefusedError: one is, or was killed in the last hour.
    """
    if jobs := list_running_jobs(connection):
        raise RefusedError(
            f"{jobs[0].task} of {jobs[0].run_id} is running (last update {jobs[0].seconds_without_news:.0f} s ago): "
            "pause the DAGs and wait until it ends, or for an hour if it was killed, then run `catalog forget` again, "
            "without names that are erased already"
        )


def _has_stale_bytes(connections: Connections) -> bool:
    with connections.engine.connect() as connection:
        return count_unwritten_erasures(connection) > 0
