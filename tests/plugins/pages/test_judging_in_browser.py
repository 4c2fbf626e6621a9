"""Correct, zoom and review in a browser, wide and narrow, by keyboard, by touch and without scripts."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text

from fixtures.catalog_rows import fail_images, start_run
from jobs.database.search import SimilarityScale
from tests.plugins.pages.conftest import BrowsedShop, Role

HEIGHT = 844
LABELS = "SELECT image_id, category FROM catalog.labels ORDER BY 1"
Open = Callable[..., Page]
expect.set_options(timeout=30_000)


@pytest.fixture
def open_page(chromium: Browser, served_url: str, make_login: Callable[[Role], str]) -> Iterator[Open]:
    """Open pages of the browsed shop in windows. After the test, check that no script failed."""
    errors: list[str] = []
    contexts = []

    def open_one(path: str, width: int = 1280, role: Role = "user", **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": HEIGHT}, base_url=served_url, **options)
        contexts.append(context)
        context.add_cookies([{"name": "_token", "value": make_login(role), "url": served_url}])
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"/catalog/{path}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []


def find_card(page: Page, image_id: int) -> Any:
    return page.locator(f'[data-image="{image_id}"]')


@pytest.fixture
def failed(browsed: BrowsedShop) -> None:
    """Three images failed in a run."""
    with browsed.shop.connections.engine.begin() as connection:
        space: int = connection.execute(text("SELECT catalog.live_space()")).scalar_one()
        start_run(connection, browsed.classifier, space, "run")
        fail_images(connection, browsed.image_ids[2:], "run")


def test_an_image_is_corrected_and_undone_by_keys(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images")
    page.evaluate("window.isSamePage = true")
    image_id = browsed.image_ids[3]
    card = find_card(page, image_id)
    page.keyboard.press("ArrowRight")
    expect(find_card(page, browsed.image_ids[4]).locator("[data-zoom]")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("e")
    expect(page.get_by_role("heading", name="What is this?")).to_be_visible()
    page.keyboard.press("0")
    expect(page.get_by_text("Relabeled 1 image as not clothing.")).to_be_visible()
    expect(card).to_contain_text("Reviewed by user@example.test")
    expect(card.locator("[data-zoom]")).to_be_focused()
    assert browsed.shop.query(LABELS) == [(image_id, "not clothing")]
    page.keyboard.press("u")
    expect(page.get_by_text("Undone. 1 image has its previous tag again.")).to_be_visible()
    expect(card).to_contain_text("shoes")
    assert browsed.shop.query(LABELS) == []
    assert page.evaluate("window.isSamePage")


def test_selected_images_are_relabeled_together(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images", 390)
    relabel = page.get_by_role("button", name="Relabel", exact=True)
    expect(relabel).to_be_disabled()
    boxes = page.locator(".pick input")
    boxes.nth(0).click()
    boxes.nth(2).click(modifiers=["Shift"])
    expect(page.get_by_text("3 selected")).to_be_visible()
    # The bar stays in view.
    expect(relabel).to_be_in_viewport()
    page.keyboard.press("x")
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.locator("#relabel select").select_option("dress")
    relabel.click()
    expect(page.get_by_text("Relabeled 2 images as dress.")).to_be_in_viewport()
    chosen = sorted(browsed.image_ids[2:4])
    assert browsed.shop.query(LABELS) == [(image_id, "dress") for image_id in chosen]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone. 2 images")).to_be_visible()
    assert browsed.shop.query(LABELS) == []
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    expect(relabel).to_be_disabled()
    page.keyboard.press("a")
    page.keyboard.press("e")
    page.get_by_role("button", name="hat", exact=True).click()
    expect(page.get_by_text("Relabeled 4 images as hat.")).to_be_visible()
    assert len(browsed.shop.query(LABELS)) == 4


def test_select_all_on_a_product_leaves_similar_products_out(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("product?id=P1")
    expect(page.locator(".pick input")).to_have_count(4)
    page.get_by_role("button", name="Select all").click()
    chosen = [box.get_attribute("value") for box in page.locator(".pick input:checked").all()]
    assert chosen == [str(image_id) for image_id in browsed.image_ids[:2]]
    page.keyboard.press("a")
    expect(page.locator(".pick input:checked")).to_have_count(0)


def test_keys_leave_folded_matches_out(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.pages import search

    monkeypatch.setattr(search, "read_product_scale", lambda *_: SimilarityScale(0.9, 1.0, 300))
    page = open_page("search?like=P1")
    matches = page.locator(".weaker .pick input")
    expect(matches).to_have_count(2)
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("z")
    expect(page.locator("#zoom")).to_be_hidden()
    expect(page.locator(".pick input:checked")).to_have_count(0)
    page.locator(".weaker summary").click()
    page.keyboard.press("a")
    expect(page.locator(".pick input:checked")).to_have_count(2)
    page.locator(".weaker [data-zoom]").first.focus()
    page.keyboard.press("z")
    expect(page.locator("#zoom [data-place]")).to_have_text("1 of 2")


def test_a_range_leaves_folded_matches_out(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images")
    # Fold two of the four images between the first and the last one.
    page.evaluate("""() => {
        const [, one, other] = [...document.querySelectorAll(".card")].slice(1);
        const folded = document.createElement("details");
        one.before(folded);
        folded.append(one, other);
    }""")
    boxes = page.locator(".pick input")
    boxes.first.click()
    boxes.last.click(modifiers=["Shift"])
    expect(page.locator(".pick input:checked")).to_have_count(2)


def test_the_count_follows_a_correction(open_page: Open) -> None:
    page = open_page("images?category=hat")
    expect(page.get_by_text("2 images")).to_be_visible()
    page.evaluate("window.isSamePage = true")
    page.locator("[data-correct]").first.click()
    page.get_by_role("button", name="dress", exact=True).click()
    expect(page.locator(".found")).to_contain_text("1 image")
    expect(page.locator(".found")).not_to_contain_text("images")
    assert page.evaluate("window.isSamePage")


def test_failed_images_are_zoomed_and_selected_by_keys(open_page: Open, failed: None) -> None:
    page = open_page("failures")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("z")
    expect(page.locator("#zoom [data-place]")).to_have_text("1 of 3")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    boxes = page.locator(".pick input")
    boxes.last.click(modifiers=["Shift"])
    expect(page.get_by_role("button", name="Retry 3 selected")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Retry selected")).to_be_disabled()
    page.keyboard.press("a")
    page.keyboard.press("i")
    expect(page.get_by_text("No image has failed")).to_be_visible()


@pytest.mark.parametrize(("path", "images"), [("product?id=P1", ".history"), ("run?run=run", ".grid.small")])
def test_images_of_the_past_are_zoomed(open_page: Open, failed: None, path: str, images: str) -> None:
    page = open_page(path)
    page.locator(f"{images} [data-zoom]").first.click()
    expect(page.locator("#zoom img")).to_be_visible()


@pytest.mark.parametrize("path", ["product?id=P1", "search?like=P1"])
def test_tags_are_corrected_where_they_are_seen(open_page: Open, browsed: BrowsedShop, path: str) -> None:
    page = open_page(path)
    card = page.locator("[data-image]").first
    image_id = int(card.get_attribute("data-image") or "")
    card.get_by_role("button", name="Correct the tag").click()
    page.keyboard.press("0")
    expect(page.get_by_text("Relabeled 1 image as not clothing.")).to_be_visible()
    assert browsed.shop.query(LABELS) == [(image_id, "not clothing")]
    if path.startswith("product"):
        expect(page.get_by_role("region", name="Tag history")).to_contain_text("not clothing")


def test_what_the_server_refuses_is_shown(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images")
    page.locator("[data-correct]").first.click()
    page.evaluate("document.querySelector('#correct [name=image]').value = '999999'")
    page.keyboard.press("0")
    expect(page.get_by_role("alert")).to_contain_text("Image 999999 is gone")
    assert browsed.shop.query(LABELS) == []


def test_without_scripts_the_forms_work(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images?category=hat", java_script_enabled=False)
    expect(page.locator("[data-correct]").first).to_be_hidden()
    page.locator(".pick input").first.check()
    page.locator("#relabel select").select_option("shoes")
    page.get_by_role("button", name="Relabel", exact=True).click()
    expect(page.get_by_text("Relabeled 1 image as shoes.")).to_be_visible()
    assert "category=hat" in page.url
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone. 1 image")).to_be_visible()
    assert browsed.shop.query(LABELS) == []


@pytest.mark.parametrize(
    ("path", "width"), [("images", 390), ("product?id=P1", 1280), ("search?like=P1", 390), ("review", 1280)]
)
def test_images_are_zoomed_by_keys(open_page: Open, path: str, width: int) -> None:
    page = open_page(path, width)
    zoom = page.locator("#zoom")
    page.keyboard.press("z")
    expect(zoom).to_be_visible()
    first = zoom.locator("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(zoom.locator("[data-place]")).to_have_text(re.compile("^2 of "))
    assert zoom.locator("img").get_attribute("src") != first
    page.keyboard.press("ArrowLeft")
    expect(zoom.locator("img")).to_have_attribute("src", first or "")
    if not path.startswith("search"):
        # The first image of the search is not in the bucket.
        expect(zoom.locator("img")).to_have_js_property("naturalWidth", 600)
    # The focus stays in the dialog, and goes back to the image afterwards.
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#zoom')")
    page.keyboard.press("Escape")
    expect(zoom).to_be_hidden()
    expect(page.locator("[data-zoom]").first).to_be_focused()


def test_images_are_zoomed_and_corrected_by_touch(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images", 390, has_touch=True, is_mobile=True)
    card = find_card(page, browsed.image_ids[3])
    card.locator("[data-zoom]").tap()
    expect(page.locator("#zoom [data-place]")).to_have_text("2 of 5")
    page.get_by_role("button", name="Next image").tap()
    expect(page.locator("#zoom [data-place]")).to_have_text("3 of 5")
    page.locator("#zoom").get_by_role("button", name="Close").tap()
    expect(page.locator("#zoom")).to_be_hidden()
    card.locator("[data-correct]").tap()
    page.get_by_role("button", name="dress", exact=True).tap()
    expect(page.get_by_text("Relabeled 1 image as dress.")).to_be_visible()
    page.get_by_role("button", name="Undo").tap()
    expect(page.get_by_text("Undone. 1 image")).to_be_visible()


def test_the_zoomed_image_is_corrected(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("images")
    find_card(page, browsed.image_ids[3]).locator("[data-zoom]").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("e")
    page.keyboard.press("0")
    expect(page.get_by_text("Relabeled 1 image as not clothing.")).to_be_visible()
    assert browsed.shop.query(LABELS) == [(browsed.image_ids[2], "not clothing")]


@pytest.mark.parametrize("has_touch", [False, True])
def test_images_are_reviewed_and_undone(open_page: Open, browsed: BrowsedShop, has_touch: bool) -> None:
    page = open_page("review", 390, has_touch=has_touch, is_mobile=has_touch)

    def choose(key: str, name: str) -> None:
        if has_touch:
            page.get_by_role("button", name=name).first.tap()
        else:
            page.keyboard.press(key)

    asked = page.locator("form.answers input[name=image_id]")
    first = asked.get_attribute("value") or ""
    choose("0", "not clothing")
    expect(page.get_by_text("1 of 4 answered")).to_be_visible()
    expect(page.locator(".last")).to_contain_text("not clothing for")
    assert browsed.shop.query(LABELS) == [(int(first), "not clothing")]
    choose("u", "Undo")
    expect(page.get_by_text("0 of 4 answered")).to_be_visible()
    expect(asked).to_have_attribute("value", first)
    assert browsed.shop.query(LABELS) == []
    skip = page.get_by_role("link", name="Skip", exact=True)
    skip.tap() if has_touch else page.keyboard.press("s")
    expect(asked).not_to_have_attribute("value", first)


def test_review_fits_a_small_screen(open_page: Open) -> None:
    page = open_page("review?only=low_confidence", 390)
    page.keyboard.press("0")
    expect(page.locator(".last")).to_be_visible()
    boxes = [one.bounding_box() for one in page.locator(".asked button, .asked .pager a, #other").all()]
    assert len(boxes) >= 5
    for box in boxes:
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= HEIGHT
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_two_people_review_different_images(open_page: Open) -> None:
    ann, bob = open_page("review", role="user"), open_page("review", role="op")
    read = "form.answers input[name=image_id]"
    seen = [page.locator(read).get_attribute("value") for page in (ann, bob)]
    assert len(set(seen)) == 2
    ann.reload()
    assert ann.locator(read).get_attribute("value") == seen[0]
    assert ann.locator(f'[data-image="{seen[1]}"]').count() == 0
    ann.keyboard.press("0")
    expect(ann.locator(".last")).to_be_visible()
    assert ann.locator(read).get_attribute("value") not in seen


def test_suggestions_are_accepted_for_the_selected(open_page: Open, browsed: BrowsedShop) -> None:
    page = open_page("review")
    expect(page.get_by_role("button", name="Accept suggestion for selected")).to_be_disabled()
    page.keyboard.press("a")
    expect(page.get_by_role("button", name="Accept suggestion for 3 selected")).to_be_visible()
    page.keyboard.press("b")
    expect(page.get_by_text("3 of 4 answered")).to_be_visible()
    page.keyboard.press("u")
    expect(page.get_by_text("0 of 4 answered")).to_be_visible()
    assert browsed.shop.query(LABELS) == []


def test_every_page_shows_its_keys(open_page: Open) -> None:
    page = open_page("overview")
    for path in ("overview", "images", "product?id=P1", "search", "review", "models", "failures"):
        page.goto(f"/catalog/{path}")
        page.keyboard.press("?")
        expect(page.get_by_role("heading", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("heading", name="Keys")).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 390])
def test_dialogs_and_bars_have_no_serious_accessibility_problem(open_page: Open, width: int) -> None:
    page = open_page("images", width)
    states = {}
    for name, keys in (("keys", "?"), ("zoom", "z"), ("menu", "e"), ("bar", "a")):
        page.keyboard.press("ArrowRight")
        page.keyboard.press(keys)
        states[name] = find_serious(page)
        page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.locator("#relabel select").select_option("dress")
    page.get_by_role("button", name="Relabel", exact=True).click()
    expect(page.get_by_text("Relabeled 4 images")).to_be_visible()
    states["report"] = find_serious(page)
    for path in ("review", "product?id=P1", "search?like=P1"):
        page.goto(f"/catalog/{path}")
        states[path] = find_serious(page)
    assert not any(states.values()), json.dumps(states, indent=1)


def find_serious(page: Page) -> list[Any]:
    """Return the rules of axe that the page breaks seriously, with some of the elements."""
    violations = Axe().run(page)["violations"]
    serious = [rule for rule in violations if rule["impact"] in {"serious", "critical"}]
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in serious]
