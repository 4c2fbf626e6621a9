"""The page of the map, and the points that its script draws."""

import json
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import delete_images
from jobs.charts import OTHER_COLOR, choose_colors
from jobs.database.maps import MapDrawing, MapVersion, read_map_drawing
from jobs.embedding_map.draw import draw_map
from tests.plugins.pages.conftest import BrowsedShop, Visit, read_text


@pytest.fixture
def with_map(browsed: BrowsedShop) -> BrowsedShop:
    draw_map(browsed.shop.connections.engine)
    return browsed


def decode(content: bytes) -> dict[str, Any]:
    """Decode points as map_view.js does."""
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    offset, columns = 4 + length, {}
    for name, kind in (("step", "<u4"), ("x", "<i2"), ("y", "<i2"), ("category", "<u2"), ("confidence", "u1")):
        columns[name] = np.frombuffer(content, kind, header["count"], offset)
        offset += columns[name].nbytes
    assert (offset, (4 + length) % 4) == (len(content), 0)
    names = [category["name"] for category in header["categories"]]
    return {
        "categories": header["categories"],
        "ids": np.cumsum(columns["step"]).tolist(),
        "places": list(zip(columns["x"].tolist(), columns["y"].tolist(), strict=True)),
        "names": [names[index] if index < 65535 else None for index in columns["category"]],
        "confidence": columns["confidence"].tolist(),
    }


def test_without_a_map_the_page_says_how_to_get_one(visit: Visit) -> None:
    page = visit("viewer").get("map")
    assert (page.status_code, "catalog map" in page.text) == (200, True)
    assert "canvas" not in page.text
    assert visit("viewer").get("map/points").status_code == 404


def test_the_map_is_in_the_navigation(visit: Visit, with_map: BrowsedShop) -> None:
    page = visit("viewer").get("map").text
    assert "4 images" in read_text(page)
    places = [page.index(link) for link in ('catalog/search"', 'catalog/map" aria-current="page"', 'catalog/review"')]
    assert places == sorted(places)


def test_points_have_position_category_and_confidence(visit: Visit, with_map: BrowsedShop) -> None:
    points = decode(visit("viewer").get("map/points").content)
    assert points["ids"] == with_map.image_ids[:4]
    assert points["names"] == ["dress", "hat", "hat", "shoes"]
    assert points["confidence"] == [90, 40, 95, 60]
    # The most frequent category comes first. Colors are the same as on all pages.
    colors = choose_colors(["dress", "hat", "shoes"])
    assert points["categories"] == [{"name": name, "series": colors[name]} for name in ("hat", "dress", "shoes")]
    stored = with_map.shop.query("SELECT position[0], position[1] FROM catalog.map_points ORDER BY image_id")
    assert points["places"] == [(round(100 * x), round(100 * y)) for x, y in stored]


def test_points_are_sent_again_only_if_they_have_changed(visit: Visit, with_map: BrowsedShop) -> None:
    viewer, ids = visit("viewer"), with_map.image_ids
    etags = []
    engine = with_map.shop.connections.engine

    def request() -> dict[str, Any]:
        answer = viewer.get("map/points")
        etags.append(answer.headers["etag"])
        again = viewer.client.get("/catalog/map/points", headers={"if-none-match": etags[-1]})
        assert (again.status_code, again.content, answer.headers["cache-control"]) == (304, b"", "private, no-cache")
        return decode(answer.content)

    request()
    reviewer = visit("user")
    form = {"address": "images", "image": str(ids[1]), "answer": "dress"}
    review_id = reviewer.post("corrections", form).headers["location"].rpartition("=")[2]
    labeled = request()
    assert (labeled["names"][1], labeled["confidence"][1]) == ("dress", 101)
    reviewer.post(f"corrections/{review_id}/undo", {"address": "images"})
    assert request()["names"][1] == "hat"
    with engine.begin() as connection:
        delete_images(connection, ids[:1])
    draw_map(engine)
    assert request()["ids"] == ids[1:4]
    assert len(set(etags)) == 4


def test_an_older_run_that_ends_last_changes_the_points(visit: Visit, with_map: BrowsedShop) -> None:
    with with_map.shop.connections.engine.begin() as connection:
        for run, started, finished in (
            ("long", "2026-11-01 10:00Z", None),
            ("short", "2026-11-01 11:00Z", "2026-11-01 11:30Z"),
        ):
            connection.execute(
                text("""
                    INSERT INTO catalog.tagging_runs (run_id, source_uri, manifest_uri, encoder_version_id, space_id,
                                                      discovered, entries, entries_by_reason, started_at, finished_at)
                    SELECT :run, '', '', encoder_version_id, space_id, '{}', 0, '{}', :started, :finished
                    FROM catalog.embedding_spaces
                """),
                {"run": run, "started": started, "finished": finished},
            )
    before = visit("viewer").get("map/points").headers["etag"]
    with with_map.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.tagging_runs SET finished_at = now() WHERE run_id = 'long'"))
    assert visit("viewer").get("map/points").headers["etag"] != before


def test_parallel_requests_read_the_points_once(
    visit: Visit, with_map: BrowsedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_airflow.pages import map_page

    versions = []

    def read_slowly(connection: Connection, version: MapVersion) -> MapDrawing:
        versions.append(version)
        sleep(0.5)
        return read_map_drawing(connection, version)

    monkeypatch.setattr(map_page, "read_map_drawing", read_slowly)
    viewers = [visit("viewer") for _ in range(4)]
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda viewer: viewer.get("map/points"), viewers))
    assert {len(decode(answer.content)["ids"]) for answer in answers} == {4}
    assert len(versions) == 1


def test_many_points_are_small(visit: Visit, with_map: BrowsedShop) -> None:
    answer = visit("viewer").get("map/points")
    assert answer.headers["content-encoding"] == "gzip"
    count, spaced = 100_000, np.random.default_rng(0)
    from catalog_airflow.pages.map_page import encode_points

    drawing = MapDrawing(
        np.cumsum(spaced.integers(1, 20, count)),
        spaced.integers(-20000, 20000, (count, 2)).astype(np.int16),
        tuple(f"category {number}" for number in range(20)),
        spaced.integers(-1, 20, count).astype(np.int16),
        np.where(spaced.random(count) < 0.1, np.nan, spaced.random(count)).astype(np.float32),
        spaced.random(count) < 0.1,
    )
    # The last category has no color: a switch happened between reading the colors and the points.
    encoded = encode_points(drawing, dict.fromkeys(drawing.categories[:-1], 0))
    points = decode(encoded)
    assert [category["series"] for category in points["categories"]] == [*[0] * 19, OTHER_COLOR]
    assert points["ids"] == drawing.image_ids.tolist()
    assert points["names"].count(None) == int((drawing.category < 0).sum())
    import gzip

    assert len(gzip.compress(encoded, 6)) < 1_000_000


def test_a_point_leads_to_its_product(visit: Visit, with_map: BrowsedShop) -> None:
    answer = visit("viewer").get(f"map/image/{with_map.image_ids[2]}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/catalog/product?id=P2")
    for missing in (10**6, 2**70):
        assert visit("viewer").get(f"map/image/{missing}").status_code == 404


def test_an_area_of_the_map_is_a_filter_of_the_grid(visit: Visit, with_map: BrowsedShop) -> None:
    x, y = with_map.shop.query(
        f"SELECT position[0], position[1] FROM catalog.map_points WHERE image_id = {with_map.image_ids[2]}"
    )[0]
    corners = ((-0.01, -0.01), (0.01, -0.01), (0.01, 0.01), (-0.01, 0.01))
    area = ";".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners)
    page = visit("viewer").get("images", area=area)
    shown = [image_id for image_id in with_map.image_ids if f"/thumbnails/{image_id}" in page.text]
    assert shown == [with_map.image_ids[2]]
    # Other filters keep the area.
    assert f'name="area" value="{area}" checked' in page.text


@pytest.mark.parametrize("area", ["x", "1,1;2,2", "1,1;2,2;3", "1,1;2,2;3,NaN", "1,1;2,2;1e9,1", "1,1;" * 50 + "1,1"])
def test_a_damaged_area_is_refused(visit: Visit, area: str) -> None:
    assert visit("viewer").get("images", area=area).status_code == 422
