"""The search page with a real query service, which runs in a thread."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fixtures.shop import Shop, make_image
from jobs.database.search import SimilarityScale
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from tests.plugins.pages.conftest import HOSTILE, Visit, read_text, show_shop
from tests.serve.conftest import run_service

WORDS = 'it\'s a "red" \\ striped <dress>; -- %(x)s'


@dataclass(frozen=True)
class SearchedShop:
    """A shop of two products, shown by the pages, with a running query service."""

    shop: Shop

    def run_sql(self, page: str) -> list[str]:
        """Run the SQL on a page as a user would who copies it, and return the products."""
        found = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
        assert found
        with self.shop.connections.engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(html.unescape(found[1]))
            return [row[0] for row in cursor.fetchall()]


@pytest.fixture
def searched(tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchedShop]:
    tagging_shop.put_images(4)
    ingest(tagging_shop.connections, IngestOptions())
    with run_service(tagging_shop.connections) as service:
        service.wait_until_ready()
        monkeypatch.setenv("CATALOG_QUERY_SERVICE_URL", service.url)
        with show_shop(tagging_shop, monkeypatch):
            yield SearchedShop(tagging_shop)


def list_products(page: str) -> list[str]:
    """Return the products on a page, in order."""
    return re.findall(r'href="/catalog/search\?like=([^"]+)"', page)


def test_every_search_finds_what_its_sql_finds(enter: Visit, searched: SearchedShop) -> None:
    viewer = enter("viewer")
    by_words = viewer.get("search", q=WORDS)
    assert by_words.status_code == 200
    assert sorted(list_products(by_words.text)) == ["p0000", "p0001"]
    assert searched.run_sql(by_words.text) == list_products(by_words.text)

    by_image = viewer.post("search", image=("x.jpg", make_image(2), "image/jpeg"))
    assert by_image.status_code == 200, read_text(by_image.text)
    assert "data:image/jpeg;base64,/9j" in by_image.text
    assert searched.run_sql(by_image.text) == list_products(by_image.text)
    [[owner]] = searched.shop.query("SELECT product_id FROM catalog.images ORDER BY object_key LIMIT 1 OFFSET 2")
    assert list_products(by_image.text)[0] == owner

    alike = viewer.get("search", like=owner)
    assert len(list_products(alike.text)) == 1
    assert searched.run_sql(alike.text) == list_products(alike.text)


def test_a_category_filters_every_search(enter: Visit, searched: SearchedShop) -> None:
    viewer = enter("viewer")
    tags = searched.shop.query("SELECT product_id, category FROM catalog.current_product_tags ORDER BY product_id")
    product, category = tags[0]
    page = viewer.get("search", q="a dress", category=category).text
    assert sorted(list_products(page)) == [one for one, tag in tags if tag == category]
    assert searched.run_sql(page) == list_products(page)
    image = ("x.jpg", make_image(0), "image/jpeg")
    assert "No results" in viewer.post("search", {"category": "no such"}, image=image).text
    assert "No results" in viewer.get("search", like=product, category="no such").text


def test_results_have_pages(enter: Visit, tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tagging_shop.put_images(60)
    ingest(tagging_shop.connections, IngestOptions())
    with run_service(tagging_shop.connections) as service:
        service.wait_until_ready()
        monkeypatch.setenv("CATALOG_QUERY_SERVICE_URL", service.url)
        with show_shop(tagging_shop, monkeypatch):
            viewer, shop = enter("viewer"), SearchedShop(tagging_shop)
            pages = [viewer.get(f"search?q=a+dress&page={page}").text for page in (1, 2, 3)]
            products = [list_products(page) for page in pages]
            assert [len(found) for found in products] == [24, 6, 0]
            assert len({product for found in products for product in found}) == 30
            for page in pages:
                assert shop.run_sql(page) == list_products(page)
            assert ["Next page" in page for page in pages] == [True, False, False]
            assert ["Previous page" in page for page in pages] == [False, True, True]
            assert "No further results" in pages[2]
            assert "page=2" in pages[0]
            for page in (0, 11):
                assert viewer.get(f"search?q=a+dress&page={page}").status_code == 422
            # An upload is not stored, so its search has no further pages.
            uploaded = viewer.post("search", image=("x.jpg", make_image(2), "image/jpeg")).text
            assert len(list_products(uploaded)) == 24
            assert "Next page" not in uploaded


def test_weaker_matches_are_folded(enter: Visit, tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import search as page_of

    tagging_shop.put_images(8)
    ingest(tagging_shop.connections, IngestOptions())
    [[product]] = tagging_shop.query("SELECT min(product_id) FROM catalog.products")
    with show_shop(tagging_shop, monkeypatch):
        viewer = enter("viewer")
        everything = viewer.get("search", like=product).text
        assert "<details" not in everything
        assert len(list_products(everything)) == 3
        for mean, spread, words in ((-1.0, 0.1, ""), (0.99, 1.0, "No close match"), (0.0, 0.3, "")):
            scale = SimilarityScale(mean, spread, 300)
            monkeypatch.setattr(page_of, "read_product_scale", lambda *_, scale=scale: scale)
            page = viewer.get("search", like=product).text
            assert ("No close match" in page) == bool(words)
            assert ("<details" in page) == bool(words)
            assert list_products(page) == list_products(everything)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jpg", b"<script>alert(1)</script>", "Cannot search for this"),
        ("../../x.svg", b"<svg onload=alert(1)>", "Cannot search for this"),
        (HOSTILE, make_image(1)[:-300], "Cannot search for this"),
        ("x.jpg", b"", "Cannot search for this"),
    ],
)
def test_an_invalid_file_is_explained(
    enter: Visit, searched: SearchedShop, name: str, content: bytes, words: str
) -> None:
    answer = enter("viewer").post("search", image=(name, content, "image/jpeg"))
    assert answer.status_code == 422
    assert words in answer.text
    assert "alert(1)" not in answer.text.replace("&lt;script&gt;", "")


def test_an_invalid_text_stays_in_its_field(enter: Visit, searched: SearchedShop) -> None:
    viewer = enter("viewer")
    spaces = viewer.get("search", q="   ")
    assert (spaces.status_code, "enter what to look for" in spaces.text) == (422, True)
    long = viewer.get("search", q="\u20ac" * 1500)
    assert (long.status_code, "more than the limit of 2000" in long.text) == (422, True)
    unknown = viewer.get("search", like=HOSTILE.replace("%00", ""))
    assert unknown.status_code == 404
    assert "<script>" not in unknown.text.replace('<script src="/catalog/static', "")


def test_a_stopped_service_is_named_and_other_pages_work(
    enter: Visit, tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagging_shop.put_images(1)
    ingest(tagging_shop.connections, IngestOptions())
    monkeypatch.setenv("CATALOG_QUERY_SERVICE_URL", "http://127.0.0.1:9")
    with show_shop(tagging_shop, monkeypatch):
        viewer = enter("viewer")
        answer = viewer.get("search", q="a new question")
        assert answer.status_code == 503
        assert "catalog serve" in answer.text
        assert 'value="a new question"' in answer.text
        assert viewer.get("search").status_code == 200
        assert viewer.get("images").status_code == 200
