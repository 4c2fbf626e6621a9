"""Queries on how much of the catalog a model version has processed, and on what a switch to it would change."""

from dataclasses import dataclass

from sqlalchemy import Connection, Executable, and_, func, literal, select, text

from jobs.database.images import count_roughly, select_random_images
from jobs.database.model_versions import ModelKind, read_live_model, read_live_versions
from jobs.database.promotions import lock_promotions, read_latest_promotion
from jobs.database.records import read_records
from jobs.database.spaces import find_space, lock_spaces
from jobs.database.tables import image_embeddings, image_tags, images, labels, text_queries

PREVIEW_SAMPLE = 4_000
"""Maximum number of images that a preview compares. It makes shares accurate to two percentage points."""


def count_unprocessed(connection: Connection, classifier: int | None, space: int | None) -> int:
    """Count the images in the bucket that lack a tag or vector of their current bytes and have not failed.

    If ``classifier`` or ``space`` is None, ignore missing tags or vectors.
    """
    statement = text("""
        SELECT count(*) FROM catalog.images i
        WHERE i.deleted_at IS NULL
          AND (CAST(:classifier AS integer) IS NOT NULL
                   AND NOT EXISTS (SELECT FROM catalog.image_tags t
                                   WHERE t.image_id = i.image_id AND t.classifier_version_id = :classifier
                                     AND t.content_hash = i.content_hash)
               OR CAST(:space AS integer) IS NOT NULL
                   AND NOT EXISTS (SELECT FROM catalog.image_embeddings e
                                   WHERE e.image_id = i.image_id AND e.space_id = :space
                                     AND e.content_hash = i.content_hash))
          AND NOT EXISTS (SELECT FROM catalog.item_failures f
                          WHERE f.image_id = i.image_id AND f.resolved_at IS NULL AND f.etag = i.etag)
    """)
    unprocessed: int = connection.execute(statement, {"classifier": classifier, "space": space}).scalar_one()
    return unprocessed


MAX_WAITING = 10_000
"""Maximum number of waiting images to count."""


@dataclass(frozen=True)
class WaitingImages:
    """Images in the bucket, as of its last listing, that a run has to process. Failed images do not count.

    ``unread`` images are new or changed; `MAX_WAITING` means that there may be more. ``untagged_share`` is the share of
    the other images that lack a result of a live model, estimated from a random sample.
    """

    unread: int
    untagged_share: float


def count_untagged(connection: Connection) -> WaitingImages:
    """Count the images that wait for a run, without reading all images."""
    unread: int = connection.execute(text(UNREAD), {"limit": MAX_WAITING}).scalar_one()
    live = read_live_versions(connection)
    parameters = {
        "classifier": live.classifier,
        "space": live.encoder.space_id if live.encoder else None,
        "size": PREVIEW_SAMPLE,
    }
    return WaitingImages(unread, connection.execute(text(UNTAGGED_SHARE), parameters).scalar_one())


_HAS_FAILED = """
    EXISTS (SELECT FROM catalog.item_failures f
            WHERE f.image_id = i.image_id AND f.resolved_at IS NULL AND f.etag = i.etag)
"""
UNREAD = f"""
    SELECT count(*) FROM (
        SELECT FROM catalog.images i
        WHERE i.content_hash IS NULL AND i.deleted_at IS NULL AND NOT {_HAS_FAILED}
        LIMIT :limit
    ) unread
"""  # noqa: S608 - constants only
UNTAGGED_SHARE = f"""
    WITH drawn AS MATERIALIZED (
        SELECT image_id, content_hash, etag FROM catalog.images
        WHERE deleted_at IS NULL ORDER BY hashint8extended(image_id, 0) LIMIT :size
    )
    SELECT coalesce(avg((CAST(:classifier AS integer) IS NOT NULL AND t.image_id IS NULL
                         OR CAST(:space AS integer) IS NOT NULL AND e.image_id IS NULL)::integer), 0)::float
    FROM drawn i
    LEFT JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id = :classifier
    LEFT JOIN catalog.image_embeddings e ON e.image_id = i.image_id AND e.space_id = :space
    WHERE i.content_hash IS NOT NULL AND NOT {_HAS_FAILED}
"""  # noqa: S608 - constants only


LOCK_TIMEOUT = "60s"
"""Maximum wait for a listing that is being recorded. It is short because tagging must wait, too."""


def lock_for_switch(connection: Connection) -> None:
    """Block changes to champions, spaces, images and texts until the transaction ends. Readers are not blocked."""
    connection.execute(text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": LOCK_TIMEOUT})
    lock_promotions(connection)
    lock_spaces(connection)
    # Every chunk and every listing updates catalog.images, so this blocks new tags and new images.
    connection.execute(text("LOCK TABLE catalog.images IN SHARE MODE"))
    connection.execute(text("LOCK TABLE catalog.text_queries IN SHARE MODE"))


@dataclass(frozen=True)
class Losses:
    """Numbers of images in the bucket with a result of the old version, and of those with none of the new version."""

    processed: int
    lost: int


def count_lost_tags(connection: Connection, old_classifier: int, new_classifier: int) -> Losses:
    """Count the images that would lose their tag if the classifier were switched."""
    statement = text("""
        SELECT count(*) AS processed, count(*) FILTER (WHERE new.image_id IS NULL) AS lost
        FROM catalog.images i
        JOIN catalog.image_tags old ON old.image_id = i.image_id AND old.classifier_version_id = :old
        LEFT JOIN catalog.image_tags new ON new.image_id = i.image_id AND new.classifier_version_id = :new
        WHERE i.deleted_at IS NULL
    """)
    (losses,) = read_records(connection.execute(statement, {"old": old_classifier, "new": new_classifier}), Losses)
    return losses


def count_lost_vectors(connection: Connection, old_space: int, new_space: int) -> Losses:
    """Count the images that would lose their vector if the encoder were switched."""
    statement = text("""
        SELECT count(*) AS processed, count(*) FILTER (WHERE new.image_id IS NULL) AS lost
        FROM catalog.images i
        JOIN catalog.image_embeddings old ON old.image_id = i.image_id AND old.space_id = :old
        LEFT JOIN catalog.image_embeddings new ON new.image_id = i.image_id AND new.space_id = :new
        WHERE i.deleted_at IS NULL
    """)
    (losses,) = read_records(connection.execute(statement, {"old": old_space, "new": new_space}), Losses)
    return losses


@dataclass(frozen=True)
class SwitchPreview:
    """The live version compared with another one, on a random sample of the images in the bucket.

    ``processed`` images have a result of the other version. The rest would have none until the next ingest. Of the
    ``compared`` images, ``changed`` would change their category; labeled images keep theirs. Vectors are not compared,
    because any search may change. ``new_texts`` counts search texts that the other encoder has not embedded.
    """

    kind: ModelKind
    present_version_id: int | None
    other_version_id: int
    images: int
    sample: int
    processed: int
    compared: int
    changed: int
    new_texts: int


def preview_switch(connection: Connection, kind: ModelKind, other_version_id: int) -> SwitchPreview:
    """Compare the live version with another one."""
    live = read_live_model(connection, kind)
    present = live.model_version_id if live else None
    if kind == "classifier":
        counts = _compare_tags(present, other_version_id)
    else:
        counts = _count_vectors(present, other_version_id, find_space(connection, other_version_id))
    return SwitchPreview(
        kind=kind,
        present_version_id=present,
        other_version_id=other_version_id,
        images=count_roughly(connection, images),
        **connection.execute(counts).one()._mapping,
    )


def _compare_tags(present_version_id: int | None, other_version_id: int) -> Executable:
    drawn = select_random_images(other_version_id, PREVIEW_SAMPLE, images.c.image_id).cte("drawn")
    present, other = image_tags.alias("present"), image_tags.alias("other")
    has_label = select(labels.c.image_id).where(labels.c.image_id == drawn.c.image_id).exists()
    is_other = and_(other.c.image_id == drawn.c.image_id, other.c.classifier_version_id == other_version_id)
    is_present = and_(present.c.image_id == drawn.c.image_id, present.c.classifier_version_id == present_version_id)
    has_both = and_(present.c.category.is_not(None), other.c.category.is_not(None))
    return select(
        func.count().label("sample"),
        func.count(other.c.image_id).label("processed"),
        func.count().filter(has_both).label("compared"),
        func.count().filter(present.c.category != other.c.category).label("changed"),
        literal(0).label("new_texts"),
    ).select_from(drawn.outerjoin(other, is_other).outerjoin(present, and_(is_present, ~has_label)))


def _count_vectors(present_version_id: int | None, other_version_id: int, space_id: int | None) -> Executable:
    drawn = select_random_images(other_version_id, PREVIEW_SAMPLE, images.c.image_id).cte("drawn")
    is_there = and_(image_embeddings.c.image_id == drawn.c.image_id, image_embeddings.c.space_id == space_id)
    known = text_queries.alias("known")
    is_known = and_(known.c.encoder_version_id == other_version_id, known.c.query_text == text_queries.c.query_text)
    new_texts = (
        select(func.count())
        .select_from(text_queries)
        .where(text_queries.c.encoder_version_id == present_version_id, ~select(known).where(is_known).exists())
        .scalar_subquery()
    )
    return select(
        func.count().label("sample"),
        func.count(image_embeddings.c.image_id).label("processed"),
        literal(0).label("compared"),
        literal(0).label("changed"),
        new_texts.label("new_texts"),
    ).select_from(drawn.outerjoin(image_embeddings, is_there))


@dataclass(frozen=True)
class PromotionReport:
    """The champion of a kind after a promotion.

    ``is_new`` is False if it was the champion before. ``unprocessed_images`` counts the images in the bucket that it
    has not processed.
    """

    kind: ModelKind
    model_version_id: int
    replaced_version_id: int | None
    promotion_id: int
    is_new: bool
    is_live: bool
    unprocessed_images: int


def report_champion(connection: Connection, kind: ModelKind, *, is_new: bool) -> PromotionReport:
    """Return the report on the champion of a kind. A champion must exist."""
    promotion, live = read_latest_promotion(connection, kind), read_live_model(connection, kind)
    assert promotion is not None
    version = promotion.model_version_id
    # No space has id 0, so without a space every image counts as unprocessed.
    space = find_space(connection, version) or 0 if kind == "encoder" else None
    return PromotionReport(
        kind=kind,
        model_version_id=version,
        replaced_version_id=promotion.replaced_version_id,
        promotion_id=promotion.promotion_id,
        is_new=is_new,
        is_live=live is not None and live.model_version_id == version,
        unprocessed_images=count_unprocessed(connection, version if kind == "classifier" else None, space),
    )
