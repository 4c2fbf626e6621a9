"""The image grid, product pages and thumbnails."""

import asyncio
import html
import re
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image
from sqlalchemy import text

from fixtures.catalog_rows import start_run
from fixtures.shop import make_image
from tests.plugins.pages.conftest import BrowsedShop, Visit, adopt_bucket, read_text


def test_images_are_shown_and_filtered(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    page = viewer.get("images").text
    assert all(f"/catalog/thumbnails/{image_id}" in page for image_id in browsed.image_ids)
    hats = viewer.get("images", category="hat").text
    assert f"/thumbnails/{browsed.image_ids[1]}" in hats
    assert f"/thumbnails/{browsed.image_ids[0]}" not in hats
    # The parameters that a browser sends for an empty form.
    empty = viewer.get("images", text="", category="", min_confidence="", max_confidence="", run="", version="")
    assert empty.status_code == 200
    assert "No image matches" in viewer.get("images", category="no such").text


CHIP = re.compile(r'<li><a href="([^"]+)"><span class="hidden">Remove filter: </span>(.*?) <span')


def read_chips(page: str) -> dict[str, str]:
    """Return the addresses without each filter, by the words of the filter."""
    return {html.unescape(words): html.unescape(url).removeprefix("/catalog/") for url, words in CHIP.findall(page)}


def count_cards(page: str) -> int:
    return page.count('<li class="card"')


def test_confidence_is_in_percent(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    page = viewer.get("images", min_confidence="40", max_confidence="60.5").text
    assert (count_cards(page), "<strong>2</strong> images" in page) == (2, True)
    assert list(read_chips(page)) == ["confidence 40 to 60.5 %"]
    assert list(read_chips(viewer.get("images", min_confidence="40").text)) == ["confidence from 40 %"]
    assert list(read_chips(viewer.get("images", max_confidence="60").text)) == ["confidence up to 60 %"]
    # 0 % is a filter, because images without a tag have no confidence.
    assert "min_confidence=0" in read_chips(viewer.get("images", min_confidence="0", category="hat").text)["hat"]


def test_each_chip_removes_its_filter_and_keeps_the_others(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    filters = {
        "text": "“P1”",
        "category": "hat",
        "max_confidence": "confidence up to 90 %",
        "disagree": "images disagree",
        "version": f"tags of classifier {browsed.classifier}",
    }
    values = {"text": "P1", "category": "hat", "max_confidence": "90", "disagree": "true"}
    query = values | {"version": str(browsed.classifier), "sort": "oldest"}
    page = viewer.get("images", **query).text
    chips = read_chips(page)
    assert list(chips) == list(filters.values())
    assert (count_cards(page), "Remove all" in page) == (1, True)
    for name, words in filters.items():
        left = dict(parse_qsl(urlsplit(chips[words]).query))
        assert set(left) == set(query) - {name}
        assert left.get("max_confidence", "90") == "90"
        others = read_chips(viewer.get(chips[words]).text)
        assert list(others) == [other for other in filters.values() if other != words]
    assert read_chips(viewer.get("images").text) == {}


def test_the_sort_is_kept_by_every_link(visit: Visit, browsed: BrowsedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import images

    monkeypatch.setattr(images, "IMAGES_SHOWN", 2)
    viewer = visit("viewer")
    red, blue, hat, shoes, untagged = browsed.image_ids
    for sort, ordered in {
        "newest": [untagged, shoes, hat, blue, red],
        "oldest": [red, blue, hat, shoes, untagged],
        "least_confident": [blue, shoes, red, hat],
        "most_confident": [hat, red, shoes, blue],
        "name": [red, blue, hat, shoes, untagged],
    }.items():
        shown: list[int] = []
        address = f"images?sort={sort}"
        while address and len(shown) < len(ordered):
            page = viewer.get(address).text
            shown += [int(image_id) for image_id in re.findall(r'src="/catalog/thumbnails/(\d+)"', page)]
            assert f'<option value="{sort}" selected' in page
            found = re.search(r'href="/catalog/(images[^"]+)" data-key="n"', page)
            address = html.unescape(found[1]) if found else ""
        assert shown == ordered
    assert viewer.get("images", sort="price").status_code == 422


def test_a_view_without_an_index_says_how_it_is_sorted(
    visit: Visit, browsed: BrowsedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.database import image_grid

    assert "too many images" not in visit("viewer").get("images", sort="name").text
    monkeypatch.setattr(image_grid, "MAX_SORTED", 1)
    words = read_text(visit("viewer").get("images", sort="name").text)
    assert "too many images to sort by name, so they are sorted newest first" in words
    assert "Fewer than" in words


def test_runs_and_classifiers_are_chosen_by_name(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    with browsed.shop.connections.engine.begin() as connection:
        space_id = connection.execute(text("SELECT space_id FROM catalog.embedding_spaces")).scalar_one()
        start_run(connection, browsed.classifier, space_id, entries=4)
    page = viewer.get("images", run="run", version=str(browsed.classifier))
    assert re.search(r'<option value="run" selected>Ingestion of \d+ \w+ 20\d\d', page.text)
    assert f"selected>classifier {browsed.classifier}, champion, live</option>" in page.text
    assert [words[:12] for words in read_chips(page.text)] == ["Ingestion of", "tags of clas"]
    unknown = viewer.get("images", run="no such", version="77").text
    assert "<option selected>no such</option>" in unknown
    assert ">classifier 77</option>" in unknown


def test_a_product_shows_its_images_tags_and_similar_products(visit: Visit, browsed: BrowsedShop) -> None:
    words = read_text(visit("viewer").get("product", id="P1").text)
    assert "images disagree" in words
    assert "P1_1.jpg" in words
    assert f"classifier {browsed.classifier}" in words
    assert "similarity" in words
    missing = visit("viewer").get("product", id="none")
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM catalog.image_embeddings", "has no image with a vector yet"),
        ("UPDATE catalog.embedding_spaces SET state = 'retired'", "no embedding space is live yet"),
    ],
)
def test_a_product_without_vectors_is_shown(visit: Visit, browsed: BrowsedShop, change: str, words: str) -> None:
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text(change))
    page = visit("user").get("product", id="P1")
    assert page.status_code == 200
    assert count_cards(page.text) == 2
    assert words in read_text(page.text)
    assert 'id="relabel"' in page.text


def test_a_thumbnail_is_a_small_jpeg(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    answer = viewer.get(f"thumbnails/{browsed.image_ids[0]}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(BytesIO(answer.content)) as image:
        assert image.size == (240, 320)
    assert "private" in answer.headers["cache-control"]
    again = viewer.client.get(
        f"/catalog/thumbnails/{browsed.image_ids[0]}", headers={"if-none-match": answer.headers["etag"]}
    )
    assert again.status_code == 304


def test_a_zoomed_image_is_larger(visit: Visit, browsed: BrowsedShop) -> None:
    browsed.shop.put("P1_1.jpg", make_image(3, (3000, 2000)))
    adopt_bucket(browsed.shop)
    viewer = visit("viewer")
    sizes = []
    for page in ("thumbnails", "zoom", "thumbnails"):
        answer = viewer.get(f"{page}/{browsed.image_ids[0]}")
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(BytesIO(answer.content)) as image:
            sizes.append(image.size)
    assert sizes == [(320, 213), (1200, 800), (320, 213)]


def test_a_thumbnail_follows_the_bytes(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    before = viewer.get(f"thumbnails/{browsed.image_ids[0]}").content
    browsed.shop.put("P1_1.jpg", make_image(77, (600, 800)))
    # The bucket has other bytes than those of the etag in the catalog.
    assert viewer.get(f"thumbnails/{browsed.image_ids[0]}").content == before
    listed = [
        item for page in browsed.shop.connections.store.list_pages(browsed.shop.connections.source) for item in page
    ]
    etag = next(item.etag for item in listed if item.key == "P1_1.jpg")
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(
            text("UPDATE catalog.images SET etag = :etag WHERE image_id = :id"),
            {"etag": etag, "id": browsed.image_ids[0]},
        )
    assert viewer.get(f"thumbnails/{browsed.image_ids[0]}").content not in (before, b"")


@pytest.mark.parametrize("image_id", ["0", "-1", "999", str(2**70)])
def test_a_missing_image_has_a_placeholder(visit: Visit, image_id: str) -> None:
    answer = visit("viewer").get(f"thumbnails/{image_id}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "image/svg+xml")


def test_the_placeholder_shows_the_reason(visit: Visit, browsed: BrowsedShop) -> None:
    browsed.shop.remove("P3_2.jpg")
    answer = visit("viewer").get(f"thumbnails/{browsed.image_ids[4]}")
    assert answer.status_code == 404
    assert "object missing" in answer.text


def sleep(_content: bytes) -> bytes:
    """Take longer than any limit."""
    time.sleep(600)
    return b""


def test_a_slow_image_blocks_no_request(visit: Visit, browsed: BrowsedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import images

    images.open_shrinker.cache_clear()
    # A server opens it in its only event loop; here every request has its own loop.
    shrinker = images.open_shrinker()
    monkeypatch.setattr(images, "shrink_under_limits", lambda _settings, _side: sleep)
    monkeypatch.setattr(images, "WAIT_SECONDS", 0.5)
    viewer = visit("viewer")
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(viewer.get, f"thumbnails/{browsed.image_ids[0]}") for _ in range(20)]
        assert viewer.get("overview").status_code == 200
        answers = [one.result(timeout=30) for one in waiting]
    assert {answer.status_code for answer in answers} == {404}
    assert all("busy" in answer.text for answer in answers)
    assert "no-store" in answers[0].headers["cache-control"]
    shrinker.close()
    images.open_shrinker.cache_clear()


def test_a_cache_of_thumbnails_stays_small(visit: Visit, browsed: BrowsedShop) -> None:
    from catalog_airflow.pages.images import ThumbnailCache

    cache = ThumbnailCache(size_bytes=4_000, side=320)
    from jobs.database.images import find_image_object

    for image_id in browsed.image_ids[:2] + browsed.image_ids[3:]:
        with browsed.shop.connections.engine.connect() as connection:
            source = find_image_object(connection, image_id)
        assert source is not None
        assert asyncio.run(cache.get(image_id, source)).content
        assert cache._kept.currsize <= 4_000
