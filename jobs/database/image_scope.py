"""The classifier and the run that an image filter refers to, and conditions on both."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, FromClause, Select, cast, select, text
from sqlalchemy.dialects.postgresql import REAL

from jobs.database.image_filters import ImageFilter
from jobs.database.maps import select_image_ids_in_area
from jobs.database.model_versions import read_live_versions
from jobs.database.records import read_records
from jobs.database.tables import product_tags


@dataclass(frozen=True)
class Scope:
    """The classifier whose tags are shown, and the start and end of the selected run."""

    version: int | None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def find_scope(connection: Connection, wanted: ImageFilter) -> Scope | None:
    """Return the scope of a filter, or None if its run was never planned."""
    if wanted.run_id is None:
        return Scope(wanted.classifier_version_id or read_live_versions(connection).classifier)
    statement = text("""
        SELECT coalesce(CAST(:version AS integer), classifier_version_id) AS version, started_at,
               coalesce(finished_at, now()) AS finished_at
        FROM catalog.tagging_runs WHERE run_id = :run
    """)
    parameters = {"run": wanted.run_id, "version": wanted.classifier_version_id}
    return next(read_records(connection.execute(statement, parameters), Scope), None)


def is_in_run(tag: FromClause, scope: Scope) -> ColumnElement[bool]:
    """Return the condition that a tag was written while the run went on."""
    return tag.c.tagged_at.between(scope.started_at, scope.finished_at)


def is_within(confidence: ColumnElement[float], bounds: tuple[float, float]) -> ColumnElement[bool]:
    """Return the condition that a confidence is within bounds, compared in the precision of the column."""
    lowest, highest = bounds
    return confidence.between(cast(lowest, REAL), cast(highest, REAL))


def select_disagreeing(scope: Scope) -> Select[tuple[str]]:
    """Select the products whose images have tags of several categories."""
    return select(product_tags.c.product_id).where(
        product_tags.c.images_disagree, product_tags.c.classifier_version_id == scope.version
    )


def filter_images(wanted: ImageFilter, scope: Scope, image: FromClause) -> list[ColumnElement[bool]]:
    """Return the conditions on images themselves, without those on tags and texts."""
    is_deleted = image.c.deleted_at.is_not(None)
    conditions: list[ColumnElement[bool]] = [is_deleted if wanted.deleted else ~is_deleted]
    if wanted.images_disagree:
        conditions.append(image.c.product_id.in_(select_disagreeing(scope)))
    if wanted.area:
        conditions.append(image.c.image_id.in_(select_image_ids_in_area(wanted.area)))
    return conditions
