"""Queries that erase images from all tables, and that rewrite the files of the tables afterwards."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg2 import errors
from sqlalchemy import Connection, Engine, text

from jobs.database.engine import describe_address
from jobs.database.examples import CATALOG_SOURCE
from jobs.database.maintenance_session import open_maintenance
from jobs.database.model_versions import ModelKind
from jobs.database.records import read_records, text_with_json
from jobs.errors import ConfigurationError, RetryableError

REWRITTEN_TABLES = (
    "products",
    "images",
    "product_tags",
    "image_tags",
    "image_embeddings",
    "vector_codes",
    "map_points",
    "labels",
    "reviews",
    "review_claims",
    "item_failures",
    "examples",
    "split_memory",
    "dataset_snapshots",
    "changes",
    "dead_letters",
)
"""All tables with a key, product, text, hash or result of an image."""

LOCK_SECONDS, LOCK_ATTEMPTS = 5, 5
"""How long the rewrite waits for the lock of a table, also between the attempts, and how often it tries."""

_IMAGE_TABLES = ("review_claims", "reviews", "vector_codes", "map_points", "labels", "item_failures", "image_tags")
"""Tables to delete from before ``images``, in this order, except ``image_embeddings``. Codes go before labels, whose
trigger would update them."""


@dataclass(frozen=True)
class CatalogImage:
    """An image to erase."""

    image_id: int
    bucket: str
    object_key: str
    product_id: str

    @property
    def source_key(self) -> str:
        """The key of its example."""
        return f"{self.bucket}/{self.object_key}"


@dataclass(frozen=True)
class SharedContent:
    """A label or another image with the same bytes as an image to erase, by ``place``: ``bucket/key``."""

    content_hash: bytes
    place: str
    is_example: bool


@dataclass(frozen=True)
class LearnedModel:
    """A model version that was trained on a snapshot."""

    model_version_id: int
    kind: ModelKind
    snapshot_id: str
    state: Literal["champion", "live", "former", "candidate"]


def find_images(connection: Connection, name: str) -> list[CatalogImage]:
    """Return the images with an object key, ``s3://bucket/key``, or else all images of a product."""
    for condition in (
        "i.object_key = :name OR 's3://' || i.bucket || '/' || i.object_key = :name",
        "product_id = :name",
    ):
        statement = text(f"SELECT * FROM catalog.images i WHERE {condition} ORDER BY image_id")  # noqa: S608
        if found := list(read_records(connection.execute(statement, {"name": name}), CatalogImage)):
            return found
    return []


def find_contents(connection: Connection, images: Sequence[CatalogImage]) -> set[bytes]:
    """Return the hashes of all bytes that these images have had: as listed, tagged, embedded or labeled."""
    statement = text("""
        SELECT content_hash FROM catalog.images WHERE image_id = ANY (:ids) AND content_hash IS NOT NULL
        UNION SELECT content_hash FROM catalog.image_tags WHERE image_id = ANY (:ids)
        UNION SELECT content_hash FROM catalog.image_embeddings
              WHERE space_id = ANY (ARRAY (SELECT space_id FROM catalog.embedding_spaces)) AND image_id = ANY (:ids)
        UNION SELECT content_hash FROM catalog.examples WHERE source = :source AND source_key = ANY (:keys)
    """)
    return set(connection.execute(statement, _parameters(images)).scalars())


def find_shared_contents(
    connection: Connection, images: Sequence[CatalogImage], contents: Sequence[bytes]
) -> list[SharedContent]:
    """Return the other images and labels with any of these bytes."""
    statement = text("""
        SELECT content_hash, bucket || '/' || object_key AS place, false AS is_example FROM catalog.images
        WHERE content_hash = ANY (CAST(:contents AS bytea[])) AND image_id <> ALL (:ids)
        UNION
        SELECT content_hash, source || '/' || source_key, true FROM catalog.examples
        WHERE content_hash = ANY (CAST(:contents AS bytea[])) AND NOT (source = :source AND source_key = ANY (:keys))
        ORDER BY place
    """)
    parameters = {**_parameters(images), "contents": list(contents)}
    return list(read_records(connection.execute(statement, parameters), SharedContent))


def delete_images(connection: Connection, images: Sequence[CatalogImage], contents: Sequence[bytes]) -> dict[str, int]:
    """Delete images from all tables, and products that have no other image. Return the number of rows by table.

    ``contents`` are hashes of bytes that nothing else in the catalog has.
    """
    parameters = {
        **_parameters(images),
        "products": sorted({image.product_id for image in images}),
        "contents": list(contents),
    }
    statements = {
        **{name: f"DELETE FROM catalog.{name} WHERE image_id = ANY (:ids)" for name in _IMAGE_TABLES},  # noqa: S608
        "image_embeddings": """
            DELETE FROM catalog.image_embeddings
            WHERE space_id = ANY (ARRAY (SELECT space_id FROM catalog.embedding_spaces)) AND image_id = ANY (:ids)
        """,
        "images": "DELETE FROM catalog.images WHERE image_id = ANY (:ids)",
        # The next publication computes them again for products that still have images.
        "product_tags": "DELETE FROM catalog.product_tags WHERE product_id = ANY (:products)",
        "products": """
            DELETE FROM catalog.products p WHERE product_id = ANY (:products)
            AND NOT EXISTS (SELECT FROM catalog.images i WHERE i.product_id = p.product_id)
        """,
        "examples": "DELETE FROM catalog.examples WHERE source = :source AND source_key = ANY (:keys)",
        "split_memory": "DELETE FROM catalog.split_memory WHERE content_hash = ANY (CAST(:contents AS bytea[]))",
    }
    deleted = {name: connection.execute(text(sql), parameters).rowcount for name, sql in statements.items()}
    deleted["dead_letters"] = _remove_dead_letters(connection, parameters["products"])
    deleted["dataset_snapshots"] = _remove_contradictions(connection, {image.source_key for image in images})
    return {name: rows for name, rows in deleted.items() if rows}


def _parameters(images: Sequence[CatalogImage]) -> dict[str, object]:
    return {
        "ids": [image.image_id for image in images],
        "keys": [image.source_key for image in images],
        "source": CATALOG_SOURCE,
    }


def _remove_dead_letters(connection: Connection, products: object) -> int:
    """Remove those products that no longer exist from dead letters. Return how many dead letters change.

    The deletion of a product is a new change, which webhooks get instead.
    """
    update = text("""
        WITH gone AS (
            SELECT product_id FROM unnest(CAST(:products AS text[])) named (product_id)
            EXCEPT SELECT product_id FROM catalog.products
        )
        UPDATE catalog.dead_letters d SET changes = (
            SELECT coalesce(jsonb_agg(c.change ORDER BY c.place), '[]')
            FROM jsonb_array_elements(d.changes) WITH ORDINALITY c (change, place)
            WHERE NOT EXISTS (SELECT FROM gone WHERE product_id = c.change->>'product_id')
        )
        WHERE EXISTS (SELECT FROM jsonb_array_elements(d.changes) c JOIN gone ON product_id = c->>'product_id')
    """)
    changed = connection.execute(update, {"products": products}).rowcount
    connection.execute(text("DELETE FROM catalog.dead_letters WHERE changes = '[]'"))
    return changed


def _remove_contradictions(connection: Connection, keys: set[str]) -> int:
    """Remove the contradictory labels of these images from the reports of snapshots. Return how many reports change."""
    names = {f"{CATALOG_SOURCE}/{key}" for key in keys}
    changed = 0
    for row in connection.execute(text("SELECT snapshot_id, report FROM catalog.dataset_snapshots")).all():
        pairs = row.report.get("contradictions", [])
        kept = [pair for pair in pairs if names.isdisjoint((pair["first"], pair["second"]))]
        if len(kept) < len(pairs):
            statement = "UPDATE catalog.dataset_snapshots SET report = :report WHERE snapshot_id = :id"
            report = {**row.report, "contradictions": kept}
            connection.execute(text_with_json(statement, "report"), {"id": row.snapshot_id, "report": report})
            changed += 1
    return changed


def list_learned_models(connection: Connection, snapshot_ids: Sequence[str]) -> list[LearnedModel]:
    """Return the model versions that were trained on these snapshots."""
    statement = text("""
        SELECT v.model_version_id, v.kind, coalesce(t.snapshot_id, v.data_snapshot) AS snapshot_id,
               CASE WHEN c.model_version_id IS NOT NULL THEN 'champion' WHEN l.model_version_id IS NOT NULL THEN 'live'
                    WHEN EXISTS (SELECT FROM catalog.promotions p WHERE p.model_version_id = v.model_version_id)
                    THEN 'former' ELSE 'candidate' END AS state
        FROM catalog.model_versions v
        LEFT JOIN catalog.trainings t USING (model_version_id)
        LEFT JOIN catalog.champion_models c USING (model_version_id)
        LEFT JOIN catalog.live_models l USING (model_version_id)
        WHERE coalesce(t.snapshot_id, v.data_snapshot) = ANY (:snapshots)
        ORDER BY v.model_version_id
    """)
    return list(read_records(connection.execute(statement, {"snapshots": list(snapshot_ids)}), LearnedModel))


def start_erasure(connection: Connection, images: Sequence[CatalogImage], snapshots: Sequence[str]) -> int:
    """Record which snapshots contain images, before their rows are erased there. Return the id of the erasure.

    An earlier call for these images that was killed has found snapshots that no longer contain them.
    """
    statement = text("""
        WITH killed AS (
            DELETE FROM catalog.erasures WHERE erased_at IS NULL AND image_ids && CAST(:ids AS bigint[])
            RETURNING snapshots
        )
        INSERT INTO catalog.erasures (image_ids, snapshots)
        SELECT :ids, ARRAY (SELECT unnest(CAST(:snapshots AS text[])) UNION SELECT unnest(snapshots) FROM killed)
        RETURNING erasure_id
    """)
    ids = [image.image_id for image in images]
    erasure_id: int = connection.execute(statement, {"ids": ids, "snapshots": list(snapshots)}).scalar_one()
    return erasure_id


def finish_erasure(connection: Connection, erasure_id: int) -> tuple[str, ...]:
    """Record that the rows of the images are deleted. Return the snapshots that contained them."""
    statement = text("""
        UPDATE catalog.erasures SET erased_at = clock_timestamp() WHERE erasure_id = :id RETURNING snapshots
    """)
    return tuple(connection.execute(statement, {"id": erasure_id}).scalar_one())


def count_unwritten_erasures(connection: Connection) -> int:
    """Return the number of erasures whose bytes may still be in the files of the tables."""
    statement = text("SELECT count(*) FROM catalog.erasures WHERE erased_at IS NOT NULL AND rewritten_at IS NULL")
    found: int = connection.execute(statement).scalar_one()
    return found


def rewrite_tables(engine: Engine) -> None:
    """Rewrite the files of all tables with images, without the bytes of deleted rows, and note it in ``erasures``.

    A plain VACUUM leaves the bytes of a deleted row in its page until another row overwrites them. Each table is locked
    while it is rewritten, and the index of each vector space is built again with one core.

    Raises:
        RetryableError: a transaction of another session still sees the deleted rows, or holds a lock.
        ConfigurationError: the role does not own the tables or the database.
    """
    with open_maintenance(engine) as connection:
        # Not those that are finished while the tables are being rewritten.
        unwritten = text("""
            SELECT erasure_id FROM catalog.erasures WHERE erased_at IS NOT NULL AND rewritten_at IS NULL
        """)
        ids = list(connection.execute(unwritten).scalars())
        # All searches wait behind a waiting lock.
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        # The statistics of columns contain some of their values. ANALYZE replaces them before their table is rewritten.
        for name in (*(f"catalog.{table}" for table in REWRITTEN_TABLES), "pg_catalog.pg_statistic"):
            _rewrite_table(connection, name)
        done = text("UPDATE catalog.erasures SET rewritten_at = now() WHERE erasure_id = ANY (:ids)")
        connection.execute(done, {"ids": ids})


def _rewrite_table(connection: Connection, name: str) -> None:
    before = _read_files(connection, name)
    notices = _vacuum(connection, name)
    # Without the right, VACUUM only warns.
    if before & _read_files(connection, name):
        address = describe_address(connection.engine.url.render_as_string(hide_password=False))
        raise ConfigurationError(
            f"{name} cannot be rewritten, because the role owns neither it nor the database {address}: let its owner "
            "run `catalog forget`"
        )
    if any(int(count) for notice in notices for count in _KEPT_DEAD.findall(notice)):
        raise RetryableError(
            f"erased rows of {name} are still visible to an older transaction of another session: wait until it ends "
            "(pg_stat_activity shows it), then run `catalog forget` without names"
        )


def _vacuum(connection: Connection, name: str) -> list[str]:
    """Rewrite a table, and return the notices of the server."""
    # Not through SQLAlchemy, which drops the notices.
    driver: Any = connection.connection.dbapi_connection
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        driver.notices = []
        try:
            with driver.cursor() as cursor:
                cursor.execute(f"VACUUM (FULL, ANALYZE, VERBOSE) {name}")
            return list(driver.notices)
        except errors.LockNotAvailable:
            if attempt < LOCK_ATTEMPTS:
                time.sleep(LOCK_SECONDS)  # Searches that waited go on.
    raise RetryableError(
        f"another session uses {name}, so it could not be locked {LOCK_ATTEMPTS} times for {LOCK_SECONDS} s: wait "
        "until its transaction ends (pg_stat_activity shows it), then run `catalog forget` without names"
    )


_KEPT_DEAD = re.compile(r"\n[^\d\n]*(\d+)[^\d\n]*\n")
"""The number of dead rows that VACUUM had to keep: the second line of its notice, in every language."""


def _read_files(connection: Connection, name: str) -> set[int]:
    """Return the file nodes of a table or of its partitions."""
    statement = text("SELECT pg_relation_filenode(relid) FROM pg_partition_tree(:name) WHERE isleaf")
    files = set(connection.execute(statement, {"name": name}).scalars())
    return files or {connection.execute(text("SELECT pg_relation_filenode(:name)"), {"name": name}).scalar_one()}
