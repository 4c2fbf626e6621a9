import pytest
from sqlalchemy import Engine

from jobs.errors import PermanentError
from jobs.search import similar_products
from jobs.settings import Settings


@pytest.mark.usefixtures("stocked")
def test_other_products_are_found(settings: Settings) -> None:
    hits = similar_products("dress", settings=settings)
    assert [(hit.product_id, hit.similarity) for hit in hits] == [("hat", 0), ("shoes", 0)]
    assert [hit.product_id for hit in similar_products("dress", category="shoes", settings=settings)] == ["shoes"]
    assert len(similar_products("dress", 1, settings=settings)) == 1


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize("product_id", ["unknown", "", "'; DROP TABLE catalog.products; --"])
def test_an_unknown_product_is_named_with_a_hint(settings: Settings, product_id: str) -> None:
    with pytest.raises(PermanentError, match=r"has no image in the catalog .*current_product_tags") as caught:
        similar_products(product_id, settings=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_that_postgres_cannot_store_are_refused(settings: Settings, text: str) -> None:
    with pytest.raises(PermanentError, match="not a text"):
        similar_products(text, settings=settings)
    with pytest.raises(PermanentError, match="not a text"):
        similar_products("dress", category=text, settings=settings)


def test_an_empty_catalog_says_what_to_do(engine: Engine, settings: Settings) -> None:
    with pytest.raises(PermanentError, match="catalog ingest"):
        similar_products("dress", settings=settings)
