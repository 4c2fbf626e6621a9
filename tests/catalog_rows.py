"""Rows for tests that ask the catalog, written as the jobs write them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, text

from jobs.database.model_versions import ModelKind
from jobs.database.promotions import NewPromotion, insert_promotion
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.database.switches import Switch, insert_switch
from jobs.database.tagging_runs import PlannedShard, RunModels, TaggingRun, insert_run

CATEGORIES = ["dress", "hat", "shoes"]


@dataclass(frozen=True)
class NewImage:
    """A photo of a product; without a category or a vector it was not tagged or not embedded."""

    product_id: str
    category: str | None = "dress"
    vector: Sequence[float] | None = None
    confidence: float = 0.9
    object_key: str | None = None
    content: bytes | None = None


def register_model(connection: Connection, kind: ModelKind, dimensions: int | None = None) -> int:
    """Register a model version that is nowhere in use; returns its id."""
    version: int = connection.execute(
        text("""
            INSERT INTO catalog.model_versions (kind, artifact_uri, weights_sha256, preprocessing, categories,
                                                dimensions, code_version)
            VALUES (:kind, 's3://artifacts/' || gen_random_uuid(), repeat('0', 64), '{}', :categories, :dimensions, '1')
            RETURNING model_version_id
        """),
        {"kind": kind, "dimensions": dimensions, "categories": CATEGORIES if kind == "classifier" else None},
    ).scalar_one()
    return version


def promote_model(
    connection: Connection, kind: ModelKind, dimensions: int | None = None, *, is_live: bool = True
) -> int:
    """Register a model version and make it the champion, a classifier also the live one; returns its id."""
    version = register_model(connection, kind, dimensions)
    insert_promotion(connection, NewPromotion(kind, version, None, None, "tester", "because"))
    if is_live and kind == "classifier":
        insert_switch(connection, Switch(kind, version, None))
    return version


def open_live_space(connection: Connection, dimensions: int) -> int:
    """A live space of a new champion encoder; returns its id."""
    space_id = open_space(connection, promote_model(connection, "encoder", dimensions), dimensions)
    create_space_index(connection, space_id)
    make_space_live(connection, space_id)
    return space_id


def add_images(connection: Connection, images: Sequence[NewImage], space_id: int, classifier: int | None) -> list[int]:
    """Insert photos with their products, tags and vectors; returns the ids in the order given."""
    image_ids = _insert_images(connection, images)
    tagged = [(image_id, image) for image_id, image in zip(image_ids, images, strict=True) if image.category]
    assert classifier or not tagged
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags (image_id, classifier_version_id, category, confidence, top_3,
                                            probabilities, content_hash)
            SELECT image_id, :classifier, category, confidence, '[]', '{}', sha256('x')
            FROM unnest(CAST(:ids AS bigint[]), CAST(:categories AS text[]), CAST(:confidences AS real[]))
                AS t (image_id, category, confidence)
        """),
        {
            "classifier": classifier,
            "ids": [image_id for image_id, _ in tagged],
            "categories": [image.category for _, image in tagged],
            "confidences": [image.confidence for _, image in tagged],
        },
    )
    embedded = [(image_id, image.vector) for image_id, image in zip(image_ids, images, strict=True) if image.vector]
    connection.execute(
        text("""
            INSERT INTO catalog.image_embeddings (space_id, image_id, content_hash, embedding)
            SELECT :space, image_id, sha256('x'), CAST(vector AS halfvec)
            FROM unnest(CAST(:ids AS bigint[]), CAST(:vectors AS text[])) AS e (image_id, vector)
        """),
        {
            "space": space_id,
            "ids": [image_id for image_id, _ in embedded],
            "vectors": [str(list(map(float, vector))) for _, vector in embedded],
        },
    )
    return image_ids


def _insert_images(connection: Connection, images: Sequence[NewImage]) -> list[int]:
    products = sorted({image.product_id for image in images})
    connection.execute(
        text("""
            INSERT INTO catalog.products (product_id, display_name)
            SELECT id, 'Name of ' || id FROM unnest(CAST(:ids AS text[])) AS id ON CONFLICT DO NOTHING
        """),
        {"ids": products},
    )
    rows = connection.execute(
        text("""
            INSERT INTO catalog.images (bucket, object_key, product_id, etag, size_bytes, content_hash)
            SELECT 'shop', coalesce(object_key, gen_random_uuid() || '.jpg'), product_id, 'etag', 1,
                   sha256(coalesce(content, CAST(gen_random_uuid()::text AS bytea)))
            FROM unnest(CAST(:keys AS text[]), CAST(:products AS text[]), CAST(:contents AS bytea[]))
                WITH ORDINALITY AS i (object_key, product_id, content, position)
            ORDER BY position
            RETURNING image_id
        """),
        {
            "keys": [image.object_key for image in images],
            "products": [image.product_id for image in images],
            "contents": [image.content for image in images],
        },
    )
    return sorted(rows.scalars())


def tag_products(connection: Connection, classifier: int, categories: dict[str, str], disagree: bool = False) -> None:
    """Give products their tag."""
    connection.execute(
        text("""
            INSERT INTO catalog.product_tags
            SELECT product_id, :classifier, category, 0.8, 1, :disagree, ''
            FROM unnest(CAST(:products AS text[]), CAST(:categories AS text[])) AS t (product_id, category)
        """),
        {
            "classifier": classifier,
            "disagree": disagree,
            "products": list(categories.keys()),
            "categories": list(categories.values()),
        },
    )


def label_image(connection: Connection, image_id: int, category: str) -> None:
    """Have a human say what an image shows."""
    connection.execute(
        text("INSERT INTO catalog.labels (image_id, category, labelled_by) VALUES (:id, :category, 'tester')"),
        {"id": image_id, "category": category},
    )


def delete_images(connection: Connection, image_ids: Sequence[int]) -> None:
    """Mark images as gone from the bucket."""
    connection.execute(
        text("UPDATE catalog.images SET deleted_at = now() WHERE image_id = ANY (:ids)"), {"ids": list(image_ids)}
    )


def store_text(connection: Connection, query_text: str, vector: str, space_id: int) -> None:
    """Keep the vector of a text, as `python -m jobs embed-text` does."""
    connection.execute(
        text("""
            INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
            SELECT :text, encoder_version_id, CAST(:vector AS halfvec)
            FROM catalog.embedding_spaces WHERE space_id = :space
        """),
        {"text": query_text, "vector": vector, "space": space_id},
    )


def start_run(
    connection: Connection, classifier: int | None, space_id: int, run_id: str = "run", entries: int = 0
) -> None:
    """Plan a run of one shard."""
    encoder: int = connection.execute(
        text("SELECT encoder_version_id FROM catalog.embedding_spaces WHERE space_id = :space"), {"space": space_id}
    ).scalar_one()
    run = TaggingRun(
        run_id=run_id,
        source_uri="s3://shop/",
        manifest_uri="s3://artifacts/manifest",
        models=RunModels(classifier, encoder, space_id),
        discovered={},
        entries=entries,
        entries_by_reason={},
        shards=1,
    )
    insert_run(connection, run, [PlannedShard(entries, chunks=2)])


def unit_vectors(count: int, dimensions: int, clusters: int, seed: int) -> np.ndarray:
    """Vectors [count, dimensions] in clusters, as embeddings lie, of unit length and half precision."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dimensions))
    return round_to_half(centres[random.integers(clusters, size=count)] + 0.3 * random.normal(size=(count, dimensions)))


def round_to_half(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors [n, dimensions] to unit length, as float64 of the values that the database stores."""
    rounded: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return rounded.astype(np.float64)
