"""Hits are close or weak depending on how similar the query is to random images."""

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space
from jobs.database.search import (
    MIN_SCALE_IMAGES,
    HitRange,
    format_search,
    insert_text_vectors,
    read_product_scale,
    read_text_scale,
    read_vector_scale,
    search_by_text,
)

DIMENSIONS = 32
ODD, MATCHING = "lawn mower", "striped dress"


def fill(connection: Connection, images: int) -> np.ndarray:
    """Add images around two directions, and texts: one of ten images, and one equally far from all. Return vectors."""
    random = np.random.default_rng(4)
    vectors = random.normal(0, 0.05, (images, DIMENSIONS))
    vectors[:, 0] = 1
    vectors[: images // 10, 1] = 1
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    space = open_live_space(connection, DIMENSIONS)
    add_images(connection, [NewImage(f"P{n}", None, list(vector)) for n, vector in enumerate(vectors)], space, None)
    encoder = connection.execute(text("SELECT encoder_version_id FROM catalog.embedding_spaces")).scalar_one()
    texts = np.zeros((2, DIMENSIONS))
    texts[0, 31], texts[1, 1] = 1, 1
    insert_text_vectors(connection, encoder, [ODD, MATCHING], texts)
    return vectors


def test_only_a_query_that_some_images_match_has_a_close_match(connection: Connection) -> None:
    fill(connection, 200)
    close = {}
    for query in (ODD, MATCHING):
        hits, scale = search_by_text(connection, query, 200, None), read_text_scale(connection, query)
        close[query] = scale.is_close(hits)
        assert sum(not scale.is_weak(hit) for hit in hits) == (20 if query == MATCHING else 0)
    assert close == {ODD: False, MATCHING: True}


def test_the_scale_is_that_of_other_queries_of_the_same_kind(connection: Connection) -> None:
    vectors = fill(connection, 200).astype(np.float16).astype(float)
    by_text = read_text_scale(connection, MATCHING)
    texts = np.eye(DIMENSIONS)[[31, 1]]
    assert by_text.images == 200
    assert by_text.mean == pytest.approx(float(vectors[:, 1].mean()), abs=1e-3)
    assert by_text.spread == pytest.approx(float(np.sqrt((texts @ vectors.T).var(axis=1).mean())), abs=1e-3)
    by_image = read_vector_scale(connection, vectors[0])
    assert by_image.mean == pytest.approx(float((vectors @ vectors[0]).mean()), abs=1e-3)
    assert by_image.spread != pytest.approx(by_text.spread, abs=1e-3)
    assert read_product_scale(connection, "P0") == by_image


def test_in_a_small_catalog_no_hit_is_weak(connection: Connection) -> None:
    fill(connection, MIN_SCALE_IMAGES - 1)
    scale, hits = read_text_scale(connection, ODD), search_by_text(connection, ODD, 5, None)
    assert scale.is_close(hits)
    assert not any(scale.is_weak(hit) for hit in hits)


def test_the_sql_of_a_page_returns_its_hits(connection: Connection) -> None:
    fill(connection, 60)
    pages = [HitRange(offset, 20) for offset in (0, 20, 40)]
    found = [page.cut(search_by_text(connection, MATCHING, page.k, None)) for page in pages]
    assert len({hit.product_id for page in found for hit in page}) == 60
    for page, hits in zip(pages, found, strict=True):
        sql = format_search("search_products", MATCHING, category=None, shown=page)
        assert [row.product_id for row in connection.execute(text(sql))] == [hit.product_id for hit in hits]
