"""All pages: errors are explained, hostile input stays text, and every state of the catalog has its pages."""

import pytest
from sqlalchemy import text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, start_run
from fixtures.shop import Shop, make_image
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Visit, read_text, show_shop


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("images", {"min_confidence": "101"}),
        ("images", {"version": "x"}),
        ("images", {"after": "nonsense"}),
        ("failures", {"after": "-1"}),
        ("models/0", {}),
        ("models/99999999999", {}),
    ],
)
def test_wrong_requests_are_explained(visit: Visit, page: str, query: dict[str, str]) -> None:
    answer = visit("viewer").get(page, **query)
    assert answer.status_code == 422
    assert "Go back" in answer.text


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("images", {"text": HOSTILE}),
        ("images", {"category": HOSTILE + "\0"}),
        ("images", {"run": HOSTILE + "\0"}),
        ("product", {"id": "P1"}),
        ("product", {"id": "P2"}),
        ("product", {"id": HOSTILE + "\0"}),
        ("run", {"run": HOSTILE + "\0"}),
        ("failures", {"reason": HOSTILE + "\0"}),
        ("search", {"like": HOSTILE + "\0"}),
        ("search", {"q": HOSTILE + "\0"}),
        ("evaluations/classifier", {"run": HOSTILE + "\0"}),
    ],
)
def test_hostile_parameters_are_escaped(visit: Visit, page: str, query: dict[str, str]) -> None:
    answer = visit("viewer").get(page, **query)
    assert answer.status_code in ((422,) if any("\0" in value for value in query.values()) else (200, 404))
    assert "<script>alert" not in answer.text


def test_an_outdated_schema_is_a_page_that_says_what_to_do(
    visit: Visit, browsed: BrowsedShop, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_airflow.pages import catalog_access

    monkeypatch.setenv("CATALOG_DATABASE_URL", empty_database_url)
    catalog_access.open_catalog().engine.dispose()
    catalog_access.open_catalog.cache_clear()
    for page in ("overview", "images", "models", "failures", "search", "review", "product", "run"):
        answer = visit("viewer").get(page, id="x", run="x")
        assert answer.status_code == 503
        assert "catalog migrate" in answer.text
        assert "Traceback" not in answer.text


def test_an_unexpected_error_shows_no_traceback(
    visit: Visit, browsed: BrowsedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_airflow.pages import images

    def break_down(*_: object) -> None:
        raise ZeroDivisionError("a secret of the code")

    monkeypatch.setattr(images, "read_image_page", break_down)
    answer = visit("viewer").get("images")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_an_empty_catalog_says_what_to_do(visit: Visit, browsed: BrowsedShop) -> None:
    tables = "reviews, labels, image_tags, product_tags, image_embeddings, vector_codes, images, products"
    with browsed.shop.connections.engine.begin() as connection:
        present = [
            name for name in tables.split(", ") if connection.scalar(text(f"SELECT to_regclass('catalog.{name}')"))
        ]
        connection.execute(text(f"TRUNCATE {', '.join(f'catalog.{name}' for name in present)} CASCADE"))
    viewer = visit("viewer")
    for page in ("overview", "images"):
        assert "catalog_ingest" in viewer.get(page).text
    assert "No image has failed" in read_text(viewer.get("failures").text)


def test_every_page_shows_a_run(enter: Visit, tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tagging_shop.put_images(6)
    tagging_shop.put("broken.jpg", b"<html>")
    run_id = ingest(tagging_shop.connections, IngestOptions()).run_id
    with show_shop(tagging_shop, monkeypatch):
        viewer = enter("viewer")
        overview = viewer.get("overview")
        assert overview.status_code == 200
        assert run_id in overview.text
        assert "<svg" in overview.text
        assert "unsupported format" in overview.text
        run = read_text(viewer.get("run", run=run_id).text)
        assert "unsupported format" in run
        assert "waiting for" in run
        assert viewer.get("images", run=run_id).text.count('class="thumbnail') == 6
        assert viewer.get("images", run=run_id, min_confidence="0", category="dress").status_code == 200
        assert "broken.jpg" in viewer.get("failures").text
        assert viewer.get("models").status_code == 200
        assert viewer.get("review").status_code == 200


def test_a_catalog_without_a_classifier_has_all_its_pages(
    shop: Shop, enter: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("P1_1.jpg", make_image(1))
    with shop.connections.engine.begin() as connection:
        space_id = open_live_space(connection, 3)
        images = [NewImage("P1", None, (1, 0, 0), object_key="P1_1.jpg"), NewImage("P2", None, (0, 1, 0))]
        add_images(connection, images, space_id, classifier=None)
        start_run(connection, None, space_id, entries=2)
        encoder = connection.execute(text("SELECT max(model_version_id) FROM catalog.model_versions")).scalar_one()
    with show_shop(shop, monkeypatch):
        viewer = enter("viewer")
        pages: list[tuple[str, dict[str, object]]] = [
            ("overview", {}),
            ("run", {"run": "run"}),
            ("images", {}),
            ("images", {"run": "run", "max_confidence": "50"}),
            ("images", {"category": "dress"}),
            ("product", {"id": "P1"}),
            ("search", {}),
            ("search", {"like": "P1"}),
            ("review", {}),
            ("failures", {}),
            ("models", {}),
            (f"models/{encoder}", {}),
        ]
        for page, query in pages:
            answer = viewer.get(page, **query)
            assert answer.status_code == 200, (page, query, read_text(answer.text))
        assert "had no classifier" in viewer.get("run", run="run").text
        assert "classifier None" not in read_text(viewer.get("run", run="run").text)
        assert "No classifier is live yet" in viewer.get("review").text
        assert "P2" in viewer.get("search", like="P1").text
