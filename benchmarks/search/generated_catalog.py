"""Generate a catalog, and load it into the real schema without running the jobs.

Its vectors are structured like a shop: categories contain styles, styles contain products, and products have a few
images. White noise would be unrealistic: in 512 dimensions it has no meaningful neighbors, and a graph index fails on
it as it never does on real vectors. Each level adds a deviation to the level above. The variance of a dimension is
inversely proportional to its rank, like the spectrum of a trained encoder's features. A random rotation then mixes the
dimensions.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Engine, text

from jobs.database.binary_copy import copy_rows, encode_bigints, encode_halfvecs, encode_integers
from jobs.database.model_builds import NewBuild, insert_builds
from jobs.database.model_versions import ModelKind
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.database.vector_codes import renew_vector_codes

DIMENSIONS = 512
IMAGES_PER_PRODUCT = 3
PRODUCTS_PER_STYLE = 160
LEVELS = {"style": 0.7, "product": 0.5, "image": 0.25}
"""The length of each deviation, relative to the distance of a category's center from the origin."""
RARE_CATEGORIES: Mapping[str, float] = {"a tenth": 0.1, "a hundredth": 0.01, "a thousandth": 0.001}
COMMON_CATEGORIES = 30
"""The number of other categories, which have equal shares of the rest."""
CHUNK = 50_000
COPY_ROWS = 20_000
NIGHT = 20_000
HASH_BYTES = 32


@dataclass(frozen=True)
class GeneratedCatalog:
    """Unit vectors of images, float16 [n, `DIMENSIONS`], grouped by product.

    ``categories`` contains the category of each product, as an index into ``names``.
    """

    vectors: np.ndarray
    categories: np.ndarray
    names: tuple[str, ...]

    @property
    def products(self) -> int:
        """Return the number of products."""
        return len(self.categories)


@dataclass(frozen=True)
class CatalogPlan:
    """A catalog whose vectors are not drawn yet, because they may not fit into memory. See `draw_vectors`."""

    categories: np.ndarray
    names: tuple[str, ...]
    styles: np.ndarray
    style_centers: np.ndarray
    spread: np.ndarray
    random: np.random.Generator


@dataclass(frozen=True)
class Loaded:
    """The time and size of filling a space, indexing it, adding the images of a night, and computing all codes."""

    copied: int
    copy_seconds: float
    index_seconds: float
    added: int
    add_seconds: float
    code_seconds: float
    index_bytes: int
    table_bytes: int
    code_bytes: int


def make_catalog(images: int, seed: int = 0) -> GeneratedCatalog:
    """Generate ``images // IMAGES_PER_PRODUCT`` products. The same arguments give the same catalog."""
    plan = plan_catalog(images, seed)
    vectors = np.empty((len(plan.categories) * IMAGES_PER_PRODUCT, DIMENSIONS), dtype=np.float16)
    start = 0
    for part in draw_vectors(plan):
        vectors[start : start + len(part)] = part
        start += len(part)
    return GeneratedCatalog(vectors, plan.categories, plan.names)


def plan_catalog(images: int, seed: int = 0) -> CatalogPlan:
    """Draw the categories and styles of ``images // IMAGES_PER_PRODUCT`` products."""
    random = np.random.default_rng(seed)
    names = (*RARE_CATEGORIES, *(f"category {number:02d}" for number in range(COMMON_CATEGORIES)))
    rest = (1 - sum(RARE_CATEGORIES.values())) / COMMON_CATEGORIES
    shares = np.array([*RARE_CATEGORIES.values(), *[rest] * COMMON_CATEGORIES])
    products = images // IMAGES_PER_PRODUCT
    categories = random.choice(len(names), size=products, p=shares)
    # A style belongs to one category. Rare categories have few styles.
    styles_by_category = np.maximum(1, np.round(shares * products / PRODUCTS_PER_STYLE)).astype(int)
    first_style = np.concatenate([[0], np.cumsum(styles_by_category)[:-1]])
    styles = first_style[categories] + random.integers(0, styles_by_category[categories])

    spread = _make_spread(random)
    centers = _draw(random, len(names), 1.0) @ spread
    style_categories = np.repeat(np.arange(len(names)), styles_by_category)
    style_centers = centers[style_categories] + _draw(random, len(style_categories), LEVELS["style"]) @ spread
    return CatalogPlan(categories, names, styles, style_centers, spread, random)


def draw_vectors(plan: CatalogPlan) -> Iterator[np.ndarray]:
    """Yield the vectors of a plan in order, those of `CHUNK` products at a time. A plan can be drawn once."""
    for start in range(0, len(plan.categories), CHUNK):
        chunk = plan.styles[start : start + CHUNK]
        means = plan.style_centers[chunk] + _draw(plan.random, len(chunk), LEVELS["product"]) @ plan.spread
        part = np.repeat(means, IMAGES_PER_PRODUCT, axis=0)
        part += _draw(plan.random, len(part), LEVELS["image"]) @ plan.spread
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        yield part.astype(np.float16)


def _make_spread(random: np.random.Generator) -> np.ndarray:
    """Return a rotation scaled by variances that are inversely proportional to their rank and add up to 1."""
    variances = 1 / np.arange(1, DIMENSIONS + 1)
    rotation, _ = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))
    spread: np.ndarray = (np.sqrt(variances / variances.sum())[:, None] * rotation).astype(np.float32)
    return spread


def _draw(random: np.random.Generator, count: int, length: float) -> np.ndarray:
    return length * random.standard_normal((count, DIMENSIONS), dtype=np.float32)


def load_catalog(engine: Engine, catalog: GeneratedCatalog) -> Loaded:
    """Fill an empty, migrated database with images, tags of images and products, vectors, and a live index.

    The last images (`NIGHT`, but at most a fifth) are added to the existing index, as in a nightly run.
    """
    added = min(NIGHT, len(catalog.vectors) // 5)
    copied = len(catalog.vectors) - added
    with engine.begin() as connection:
        space_id = open_catalog(connection, catalog)
        with stopwatch() as copying:
            copy_vectors(connection, space_id, 1, catalog.vectors[:copied])
    with engine.begin() as connection, stopwatch() as indexing:
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)
    with engine.begin() as connection, stopwatch() as adding:
        copy_vectors(connection, space_id, 1 + copied, catalog.vectors[copied:])
    with engine.begin() as connection, stopwatch() as coding:
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


def open_catalog(connection: Connection, catalog: GeneratedCatalog | CatalogPlan) -> int:
    """Insert images with ids from 1, and tags of images and products. Return the id of a new, empty space."""
    classifier = _insert_version(connection, "classifier", catalog.names)
    encoder = _insert_version(connection, "encoder", ())
    insert_switch(connection, Switch("classifier", classifier, None))
    _insert_images(connection, catalog, classifier)
    return open_space(connection, encoder, DIMENSIONS)


def load_second_space(engine: Engine, vectors: np.ndarray, name: str = "second", *, is_indexed: bool = True) -> int:
    """Fill a space that is not live with other vectors of the first images, and index it. Return its id."""
    with engine.begin() as connection:
        space_id = open_space(connection, _insert_version(connection, "encoder", (), name), DIMENSIONS)
        copy_vectors(connection, space_id, 1, vectors)
    if is_indexed:
        with engine.begin() as connection:
            create_space_index(connection, space_id)
    return space_id


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that returns how many seconds the block took."""
    started = time.perf_counter()
    seconds: list[float] = []
    yield lambda: seconds[0]
    seconds.append(round(time.perf_counter() - started, 2))


def copy_vectors(connection: Connection, space_id: int, first_image_id: int, vectors: np.ndarray) -> None:
    """Insert vectors (float16 [n, `DIMENSIONS`]) of images with consecutive ids. Uses a binary COPY."""
    statement = text("""
        SELECT b.build_id FROM catalog.embedding_spaces s
        JOIN catalog.model_builds b ON b.model_version_id = s.encoder_version_id WHERE s.space_id = :space
    """)
    build_id = connection.execute(statement, {"space": space_id}).scalar_one()
    for start in range(0, len(vectors), COPY_ROWS):
        part = vectors[start : start + COPY_ROWS]
        image_ids = range(first_image_id + start, first_image_id + start + len(part))
        columns = {
            "space_id": encode_integers([space_id] * len(part)),
            "image_id": encode_bigints(image_ids),
            "build_id": encode_integers([build_id] * len(part)),
            # The same as in `_insert_images`: each image has different bytes.
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
        "uri": f"s3://generated/{kind}/{name}",
        "categories": list(categories) if is_classifier else None,
        "dimensions": None if is_classifier else DIMENSIONS,
    }
    version: int = connection.execute(statement, parameters).scalar_one()
    build = NewBuild(version, "cpu", "torch", "fp32", f"s3://generated/{kind}/build", None, (), "benchmark")
    insert_builds(connection, [build])
    return version


def _insert_images(connection: Connection, catalog: GeneratedCatalog | CatalogPlan, classifier: int) -> None:
    """Insert products, images with ids from 1, and the tags of both. An image has the category of its product."""
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE generated ON COMMIT DROP AS
            SELECT product_number, 'sku' || product_number AS product_id,
                   (CAST(:names AS text[]))[1 + category] AS category
            FROM unnest(CAST(:categories AS integer[])) WITH ORDINALITY AS c (category, product_number)
        """),
        {"names": list(catalog.names), "categories": catalog.categories.tolist()},
    )
    parameters = {"images": IMAGES_PER_PRODUCT, "classifier": classifier}
    for statement in (INSERT_PRODUCTS, INSERT_IMAGES, INSERT_IMAGE_TAGS, INSERT_PRODUCT_TAGS):
        connection.execute(text(statement), parameters)


INSERT_PRODUCTS = "INSERT INTO catalog.products (product_id, display_name) SELECT product_id, product_id FROM generated"
INSERT_IMAGES = """
    INSERT INTO catalog.images (image_id, bucket, object_key, product_id, etag, size_bytes, content_hash, width, height)
    OVERRIDING SYSTEM VALUE
    SELECT image_id, 'images', product_id || '_' || image_id || '.jpg', product_id, 'etag', 100000,
           decode(lpad(to_hex(image_id), 64, '0'), 'hex'), 400, 533
    FROM (
        SELECT m.product_id, (m.product_number - 1) * :images + image AS image_id
        FROM generated m CROSS JOIN generate_series(1, :images) AS image
    ) numbered
"""
INSERT_IMAGE_TAGS = """
    INSERT INTO catalog.image_tags
        (image_id, classifier_version_id, build_id, category, confidence, top_3, probabilities, content_hash)
    SELECT i.image_id, :classifier, b.build_id, m.category, 0.9, '[]', '{0.9}', i.content_hash
    FROM generated m JOIN catalog.images i USING (product_id)
    JOIN catalog.model_builds b ON b.model_version_id = :classifier
"""
INSERT_PRODUCT_TAGS = """
    INSERT INTO catalog.product_tags
        (product_id, classifier_version_id, category, confidence, images, images_disagree, fused_from)
    SELECT product_id, :classifier, category, 0.9, :images, false, 'generated' FROM generated
"""
