from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy import Engine, text

from fixtures.catalog_rows import open_live_space
from fixtures.shop import change_settings
from jobs.errors import PermanentError, RetryableError
from jobs.search import ProductHit, search_products
from jobs.search.by_text import embed_text_query, find_products_by_text
from jobs.settings import Settings

AXES = ["dress", "hat", "shoes"]


class WordEncoder:
    """An encoder with one axis per word. Records the model versions it was loaded for."""

    def __init__(self) -> None:
        self.loaded_for: list[int] = []

    def load(self, model_version_id: int) -> "WordEncoder":
        self.loaded_for.append(model_version_id)
        return self

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[axis in text for axis in AXES] for text in texts], dtype=np.float32) + 0.1
        unit: np.ndarray = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return unit


def count_texts(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM catalog.text_queries")).scalar_one()  # type: ignore[no-any-return]


def test_a_new_text_is_embedded_once(stocked: Engine) -> None:
    encoder = WordEncoder()
    for _ in range(2):
        hits = find_products_by_text(stocked, encoder.load, "a red dress", 2, None)
        assert [hit.product_id for hit in hits] == ["dress", "hat"]
    assert len(encoder.loaded_for) == 1
    assert hits[0] == ProductHit("dress", "Name of dress", "dress", hits[0].similarity, hits[0].image_id, "dress.jpg")
    assert hits[0].similarity == pytest.approx(0.99, abs=0.01)


def test_category_and_count_limit_the_hits(stocked: Engine) -> None:
    encoder = WordEncoder()
    assert [hit.product_id for hit in find_products_by_text(stocked, encoder.load, "dress", 10, "shoes")] == ["shoes"]
    assert len(find_products_by_text(stocked, encoder.load, "dress", 1, None)) == 1


def test_a_text_is_embedded_again_for_another_encoder(stocked: Engine) -> None:
    encoder = WordEncoder()
    assert embed_text_query(stocked, encoder.load, "hat")
    assert not embed_text_query(stocked, encoder.load, "hat")
    with stocked.begin() as connection:
        open_live_space(connection, 3)
    assert embed_text_query(stocked, encoder.load, "hat")
    assert len(set(encoder.loaded_for)) == 2
    assert count_texts(stocked) == 2


def test_a_switch_during_the_embedding_repeats_it(stocked: Engine) -> None:
    class OvertakenEncoder(WordEncoder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            if len(self.loaded_for) == 1:
                with stocked.begin() as connection:
                    open_live_space(connection, 3)
            return super().embed(texts)

    encoder = OvertakenEncoder()
    assert embed_text_query(stocked, encoder.load, "hat")
    assert len(set(encoder.loaded_for)) == 2
    with stocked.connect() as connection:
        # This would raise if the live encoder, whose space is empty, did not know the text.
        assert connection.execute(text("SELECT * FROM catalog.search_products('hat')")).all() == []


def test_search_products_uses_the_database_of_the_settings(stocked: Engine, settings: Settings) -> None:
    embed_text_query(stocked, WordEncoder().load, "hat")
    assert [hit.product_id for hit in search_products("hat", 1, settings=settings)] == ["hat"]


def test_an_unreachable_database_is_a_retryable_error(settings: Settings) -> None:
    away = change_settings(settings, database_url="postgresql://shop:hush@127.0.0.1:1/catalog")
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1/catalog"):
        search_products("hat", settings=away)


@pytest.mark.parametrize("query_text", ["", " \n", "x" * 2001, "\u20ac" * 667, "a\0b", "\ud800"])
def test_an_invalid_text_is_refused_before_any_work(stocked: Engine, query_text: str) -> None:
    encoder = WordEncoder()
    with pytest.raises(PermanentError, match="the query"):
        embed_text_query(stocked, encoder.load, query_text)
    assert encoder.loaded_for == []


@pytest.mark.parametrize("query_text", ['it\'s "red"', "'; DROP TABLE catalog.images; --", "two\nlines", "ünï😀" * 100])
def test_hostile_texts_are_searched_as_text(stocked: Engine, query_text: str) -> None:
    assert len(find_products_by_text(stocked, WordEncoder().load, query_text, 10, None)) == 3


@pytest.mark.parametrize(("k", "words"), [(0, "k is 0"), (2**40, "integer out of range")])
def test_an_invalid_count_is_refused(stocked: Engine, k: int, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        find_products_by_text(stocked, WordEncoder().load, "hat", k, None)


def test_without_a_live_space_the_error_says_what_to_do(engine: Engine) -> None:
    with pytest.raises(PermanentError, match="catalog ingest"):
        find_products_by_text(engine, WordEncoder().load, "hat", 1, None)
