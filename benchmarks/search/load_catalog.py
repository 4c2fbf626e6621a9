"""A made-up catalog in the real schema, as the jobs would have left it, without the jobs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Engine, text

from benchmarks.search.made_up_vectors import DIMENSIONS, PHOTOS_PER_PRODUCT, MadeUpCatalog
from jobs.database.binary_copy import copy_rows, encode_bigints, encode_halfvecs, encode_integers
from jobs.database.model_versions import ModelKind
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.database.vector_codes import renew_vector_codes

COPY_ROWS = 20_000
NIGHT = 20_000
HASH_BYTES = 32


@dataclass(frozen=True)
class Loaded:
    """What it took to fill a space, index it, add a night's photos (``added``) to the index, and make all codes."""

    copied: int
    copy_seconds: float
    index_seconds: float
    added: int
    add_seconds: float
    code_seconds: float
    index_bytes: int
    table_bytes: int
    code_bytes: int


def load_catalog(engine: Engine, catalog: MadeUpCatalog) -> Loaded:
    """Fill an empty, migrated database: photos, tags of photos and products, vectors, a live index.

    The last photos, `NIGHT` or a fifth of all, are added when the index is there, as a nightly run does.
    """
    added = min(NIGHT, len(catalog.vectors) // 5)
    copied = len(catalog.vectors) - added
    with engine.begin() as connection:
        classifier = _insert_version(connection, "classifier", catalog.names)
        encoder = _insert_version(connection, "encoder", ())
        insert_switch(connection, Switch("classifier", classifier, None))
        _insert_photos(connection, catalog, classifier)
        space_id = open_space(connection, encoder, DIMENSIONS)
        with _stopwatch() as copying:
            copy_vectors(connection, space_id, 1, catalog.vectors[:copied])
    with engine.begin() as connection, _stopwatch() as indexing:
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)
    with engine.begin() as connection, _stopwatch() as adding:
        copy_vectors(connection, space_id, 1 + copied, catalog.vectors[copied:])
    with engine.begin() as connection, _stopwatch() as coding:
        renew_vector_codes(connection, space_id)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        index_bytes, table_bytes, code_bytes = connection.execute(
            text(
                f"SELECT pg_relation_size('catalog.image_embeddings_{space_id:d}_hnsw'), "
                f"pg_table_size('catalog.image_embeddings_{space_id:d}'), "
                "pg_total_relation_size('catalog.vector_codes')"
            )
        ).one()
    return Loaded(
        copied=copied,
        copy_seconds=copying(),
        index_seconds=indexing(),
        added=added,
        add_seconds=adding(),
        code_seconds=coding(),
        index_bytes=index_bytes,
        table_bytes=table_bytes,
        code_bytes=code_bytes,
    )


def load_second_space(engine: Engine, vectors: np.ndarray) -> None:
    """Fill and index a space that is not live with other vectors of the photos that `load_catalog` has loaded."""
    with engine.begin() as connection:
        space_id = open_space(connection, _insert_version(connection, "encoder", (), name="second"), DIMENSIONS)
        copy_vectors(connection, space_id, 1, vectors)
    with engine.begin() as connection:
        create_space_index(connection, space_id)


@contextmanager
def _stopwatch() -> Iterator[Callable[[], float]]:
    """Gives a function that says how many seconds the block took."""
    started = time.perf_counter()
    seconds: list[float] = []
    yield lambda: seconds[0]
    seconds.append(round(time.perf_counter() - started, 2))


def copy_vectors(connection: Connection, space_id: int, first_image_id: int, vectors: np.ndarray) -> None:
    """Send vectors float16 [n, `DIMENSIONS`] of photos with consecutive ids by a binary COPY."""
    for start in range(0, len(vectors), COPY_ROWS):
        part = vectors[start : start + COPY_ROWS]
        image_ids = range(first_image_id + start, first_image_id + start + len(part))
        columns = {
            "space_id": encode_integers([space_id] * len(part)),
            "image_id": encode_bigints(image_ids),
            # Some bytes that differ for each photo; see `_insert_photos`.
            "content_hash": [image_id.to_bytes(HASH_BYTES, "big") for image_id in image_ids],
            "embedding": encode_halfvecs(part),
        }
        copy_rows(connection, "catalog.image_embeddings", columns)


def _insert_version(connection: Connection, kind: ModelKind, categories: tuple[str, ...], name: str = "first") -> int:
    statement = text("""
        INSERT INTO catalog.model_versions
            (kind, artifact_uri, weights_sha256, preprocessing, categories, dimensions, code_version)
        VALUES (:kind, :uri, repeat('0', 64), '{}', :categories, :dimensions, 'benchmark')
        RETURNING model_version_id
    """)
    is_classifier = kind == "classifier"
    parameters = {
        "kind": kind,
        "uri": f"s3://made-up/{kind}/{name}",
        "categories": list(categories) if is_classifier else None,
        "dimensions": None if is_classifier else DIMENSIONS,
    }
    version: int = connection.execute(statement, parameters).scalar_one()
    return version


def _insert_photos(connection: Connection, catalog: MadeUpCatalog, classifier: int) -> None:
    """Products, photos with the ids from 1 on, and tags of both; a photo has the category of its product."""
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE made_up ON COMMIT DROP AS
            SELECT product_number, 'sku' || product_number AS product_id,
                   (CAST(:names AS text[]))[1 + category] AS category
            FROM unnest(CAST(:categories AS integer[])) WITH ORDINALITY AS c (category, product_number)
        """),
        {"names": list(catalog.names), "categories": catalog.categories.tolist()},
    )
    parameters = {"photos": PHOTOS_PER_PRODUCT, "classifier": classifier}
    for statement in (INSERT_PRODUCTS, INSERT_IMAGES, INSERT_IMAGE_TAGS, INSERT_PRODUCT_TAGS):
        connection.execute(text(statement), parameters)


INSERT_PRODUCTS = "INSERT INTO catalog.products (product_id, display_name) SELECT product_id, product_id FROM made_up"
INSERT_IMAGES = """
    INSERT INTO catalog.images (image_id, bucket, object_key, product_id, etag, size_bytes, content_hash, width, height)
    OVERRIDING SYSTEM VALUE
    SELECT image_id, 'photos', product_id || '_' || image_id || '.jpg', product_id, 'etag', 100000,
           decode(lpad(to_hex(image_id), 64, '0'), 'hex'), 400, 533
    FROM (
        SELECT m.product_id, (m.product_number - 1) * :photos + photo AS image_id
        FROM made_up m CROSS JOIN generate_series(1, :photos) AS photo
    ) numbered
"""
INSERT_IMAGE_TAGS = """
    INSERT INTO catalog.image_tags
        (image_id, classifier_version_id, category, confidence, top_3, probabilities, content_hash)
    SELECT i.image_id, :classifier, m.category, 0.9, '[]', '{0.9}', i.content_hash
    FROM made_up m JOIN catalog.images i USING (product_id)
"""
INSERT_PRODUCT_TAGS = """
    INSERT INTO catalog.product_tags
        (product_id, classifier_version_id, category, confidence, photos, photos_disagree, fused_from)
    SELECT product_id, :classifier, category, 0.9, :photos, false, 'made up' FROM made_up
"""
