"""Tags and vectors of a chunk, stored once and again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
import pytest
from sqlalchemy import Connection, Engine, exc, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model
from jobs.database.model_builds import list_builds
from jobs.database.tagging_results import Embedding, Tag, upsert_embeddings, upsert_tags

DIMENSIONS = 5


@dataclass(frozen=True)
class Catalog:
    """Three images without results, a classifier with a build, and a live space with its index."""

    engine: Engine
    image_ids: list[int]
    classifier: int
    space_id: int
    build_id: int

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]


@pytest.fixture
def catalog(engine: Engine) -> Catalog:
    with engine.begin() as connection:
        space_id, classifier = open_live_space(connection, DIMENSIONS), promote_model(connection, "classifier")
        image_ids = add_images(connection, [NewImage("p", category=None)] * 3, space_id, classifier)
        (build,) = list_builds(connection, classifier)
    return Catalog(engine, image_ids, classifier, space_id, build.build_id)


def make_tag(image_id: int, category: str, probabilities: Sequence[float]) -> Tag:
    numbers = np.array(probabilities, dtype=np.float32)
    top_3 = ((category, float(numbers.max(initial=0))),)
    return Tag(image_id, hash_of(image_id), *top_3[0], top_3, numbers)


def make_embedding(image_id: int, seed: int) -> Embedding:
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return Embedding(image_id, hash_of(image_id), vector / np.linalg.norm(vector))


def hash_of(image_id: int) -> bytes:
    return image_id.to_bytes(32, "big")


def count_temporary_tables(connection: Connection) -> int:
    statement = text("SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname LIKE 'staged_%'")
    return int(connection.scalar(statement) or 0)


def test_tags_are_read_back_as_they_were_given(catalog: Catalog) -> None:
    first, _, third = catalog.image_ids
    tags = [make_tag(first, "Größe “neu” 👗", [0.1, 0.7, 0.2]), make_tag(third, "", [1 / 3, 1 / 3, 1 / 3])]
    with catalog.engine.begin() as connection:
        upsert_tags(connection, catalog.classifier, catalog.build_id, tags)
    rows = catalog.read("""
        SELECT image_id, category, confidence, top_3, probabilities, content_hash, classifier_version_id
        FROM catalog.image_tags ORDER BY image_id
    """)
    assert [row[0] for row in rows] == [first, third]
    for tag, row in zip(tags, rows, strict=True):
        assert row[1] == tag.category
        assert np.float32(row[2]) == np.float32(tag.confidence)
        assert row[3] == [{"category": tag.category, "confidence": tag.confidence}]
        assert np.array(row[4], dtype=np.float32).tobytes() == tag.probabilities.tobytes()
        assert (bytes(row[5]), row[6]) == (tag.content_hash, catalog.classifier)


def test_vectors_are_read_back_in_half_precision(catalog: Catalog) -> None:
    embeddings = [make_embedding(image_id, image_id) for image_id in catalog.image_ids]
    with catalog.engine.begin() as connection:
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, embeddings)
    rows = catalog.read("""
        SELECT image_id, space_id, content_hash, CAST(embedding AS text)
        FROM catalog.image_embeddings ORDER BY image_id
    """)
    assert [row[:2] for row in rows] == [(image_id, catalog.space_id) for image_id in catalog.image_ids]
    for embedding, row in zip(embeddings, rows, strict=True):
        assert bytes(row[2]) == embedding.content_hash
        assert np.array_equal(np.array(json.loads(row[3])).astype(np.float16), embedding.vector.astype(np.float16))


def test_later_results_replace_earlier_ones(catalog: Catalog) -> None:
    first = catalog.image_ids[0]
    times = (
        "SELECT min(tagged_at), min(embedded_at) FROM catalog.image_tags JOIN catalog.image_embeddings USING (image_id)"
    )
    for category, seed in (("hat", 1), ("dress", 2)):
        with catalog.engine.begin() as connection:
            upsert_tags(connection, catalog.classifier, catalog.build_id, [make_tag(first, category, [seed / 4])])
            upsert_embeddings(connection, catalog.space_id, catalog.build_id, [make_embedding(first, seed)])
        if seed == 1:
            before = catalog.read(times)[0]
    after = catalog.read(times)[0]
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert catalog.read("SELECT category, confidence, probabilities FROM catalog.image_tags") == [("dress", 0.5, [0.5])]
    ((vector,),) = catalog.read("SELECT CAST(embedding AS text) FROM catalog.image_embeddings")
    expected = make_embedding(first, 2).vector.astype(np.float16)
    assert np.array_equal(np.array(json.loads(vector)).astype(np.float16), expected)


def test_two_batches_in_one_transaction_stay_separate(catalog: Catalog) -> None:
    """The second must not store again what the first has staged."""
    first, second, _ = catalog.image_ids
    with catalog.engine.begin() as connection:
        upsert_tags(connection, catalog.classifier, catalog.build_id, [make_tag(first, "hat", [1])])
        connection.execute(text("UPDATE catalog.image_tags SET category = 'touched'"))
        upsert_tags(connection, catalog.classifier, catalog.build_id, [make_tag(second, "hat", [1])])
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, [make_embedding(first, 1)])
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, [make_embedding(first, 2)])
    assert catalog.read("SELECT category FROM catalog.image_tags ORDER BY image_id") == [("touched",), ("hat",)]


def test_no_results_change_nothing(catalog: Catalog) -> None:
    with catalog.engine.begin() as connection:
        upsert_tags(connection, catalog.classifier, catalog.build_id, [])
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, [])
        assert count_temporary_tables(connection) == 0


def test_a_tag_without_probabilities_is_stored(catalog: Catalog) -> None:
    with catalog.engine.begin() as connection:
        upsert_tags(connection, catalog.classifier, catalog.build_id, [make_tag(catalog.image_ids[0], "dress", [])])
    assert catalog.read("SELECT probabilities FROM catalog.image_tags") == [([],)]


def test_nothing_stays_in_the_tables_of_a_connection(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        for category in ("hat", "dress", "shoes"):
            with connection.begin():
                upsert_tags(
                    connection, catalog.classifier, catalog.build_id, [make_tag(catalog.image_ids[0], category, [1])]
                )
            with connection.begin():
                assert connection.scalar(text("SELECT count(*) FROM pg_temp.staged_tags")) == 0
                assert connection.scalar(text("SELECT pg_relation_size('pg_temp.staged_tags')")) == 0
                assert count_temporary_tables(connection) == 1


def test_a_transaction_that_failed_leaves_a_connection_that_works(catalog: Catalog) -> None:
    first = catalog.image_ids[0]
    wrong = make_tag(first, "dress", [np.nan])
    with catalog.engine.connect() as connection:
        for _ in range(2):
            with pytest.raises((exc.DBAPIError, psycopg2.Error)), connection.begin():
                upsert_tags(connection, catalog.classifier, catalog.build_id, [wrong])
            with connection.begin():
                upsert_tags(connection, catalog.classifier, catalog.build_id, [make_tag(first, "hat", [1])])
    assert catalog.read("SELECT category FROM catalog.image_tags") == [("hat",)]


def test_a_vector_with_nan_is_refused(catalog: Catalog) -> None:
    first, second, _ = catalog.image_ids
    wrong = Embedding(second, hash_of(second), np.full(DIMENSIONS, np.nan, dtype=np.float32))
    with pytest.raises(psycopg2.DataError, match="NaN"), catalog.engine.begin() as connection:
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, [make_embedding(first, 1), wrong])
    assert catalog.read("SELECT count(*) FROM catalog.image_embeddings") == [(0,)]


def test_a_vector_of_another_length_is_refused(catalog: Catalog) -> None:
    first = catalog.image_ids[0]
    wrong = Embedding(first, hash_of(first), np.ones(DIMENSIONS + 1, dtype=np.float32))
    with pytest.raises(exc.DBAPIError, match="embedding_check"), catalog.engine.begin() as connection:
        upsert_embeddings(connection, catalog.space_id, catalog.build_id, [wrong])
