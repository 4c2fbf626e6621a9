"""Draw the map in a real browser, and select images with a mouse, a finger and the keyboard."""

import base64
import math
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import pytest
from axe_core_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import text

from fixtures.catalog_rows import label_image
from jobs.charts import choose_colors
from tests.plugins.pages.conftest import BrowsedShop, Role

WIDE, NARROW = 1280, 390
on_both = pytest.mark.parametrize("page", [WIDE, NARROW], indirect=True)
PLACES = [(-10, 5), (-9, 5), (10, 5), (10, -5)]
"""Positions of the four images on the map: two dresses on the left, a hat and shoes on the right."""


@pytest.fixture
def url(served_url: str, browsed: BrowsedShop) -> str:
    """The pages of the shop, with a map."""
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.image_tags SET category = 'dress' WHERE confidence < 0.5"))
        connection.execute(
            text("INSERT INTO catalog.maps (space_id, added_points) SELECT space_id, 0 FROM catalog.embedding_spaces")
        )
        for image_id, (x, y) in zip(browsed.image_ids, PLACES, strict=False):
            connection.execute(
                text("""
                    INSERT INTO catalog.map_points (space_id, image_id, position, embedded_at)
                    SELECT space_id, :image, point(:x, :y), now() FROM catalog.embedding_spaces
                """),
                {"image": image_id, "x": x, "y": y},
            )
    return served_url


@pytest.fixture
def page(
    request: pytest.FixtureRequest, chromium: Browser, url: str, make_login: Callable[[Role], str]
) -> Iterator[Page]:
    """The loaded map, wide unless a parameter asks for a phone. No script may fail."""
    width = getattr(request, "param", WIDE)
    context: BrowserContext = chromium.new_context(viewport={"width": width, "height": 900}, has_touch=width == NARROW)
    context.add_cookies([{"name": "_token", "value": make_login("viewer"), "url": url}])
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{url}/catalog/map")
    expect(page.get_by_role("status")).to_have_text("4 images")
    # Before the first drawing, all pixels are black.
    wait_for_pixels(page, lambda pixels: (pixels == 255).any())
    yield page
    assert errors == []
    context.close()


def find_place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return where the window shows a place of the map, if the whole map is in view."""
    box = page.locator(".map-points").bounding_box()
    assert box is not None
    scale = 0.92 * min(box["width"] / 20, box["height"] / 10)
    return box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 - y * scale


def read_pixels(page: Page) -> np.ndarray:
    """Return the pixels of the points, [height, width, 3]."""
    content = page.evaluate("document.querySelector('.map-points').toDataURL()")
    with Image.open(BytesIO(base64.b64decode(content.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def wait_for_pixels(page: Page, is_right: Callable[[np.ndarray], np.bool_]) -> None:
    """Wait until the points are drawn as expected."""
    for _ in range(100):
        if is_right(read_pixels(page)):
            return
        page.wait_for_timeout(100)
    raise AssertionError("the points are not drawn as expected")


def read_point(page: Page, x: float, y: float) -> str:
    """Return the color at a place of the map, as in a style sheet."""
    box = page.locator(".map-points").bounding_box()
    assert box is not None
    px, py = find_place(page, x, y)
    color: bytes = read_pixels(page)[int(py - box["y"]), int(px - box["x"])].tobytes()
    return f"#{color.hex()}"


def read_variable(page: Page, name: str) -> str:
    """Return a variable of the style sheet."""
    value: str = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", name)
    return value.strip()


def draw_around(page: Page, x: float, y: float, radius: float) -> None:
    """Draw a circle with the mouse."""
    corners = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 60)]
    page.mouse.move(*find_place(page, *corners[0]))
    page.mouse.down()
    for corner in corners:
        page.mouse.move(*find_place(page, *corner))
    page.mouse.up()


def touch(page: Page, *steps: list[tuple[float, float]]) -> None:
    """Put fingers on the screen, move them from step to step, and lift them. A step has the place of each finger."""
    session = page.context.new_cdp_session(page)
    for number, step in enumerate([*steps, []]):
        kind = "touchStart" if number == 0 else "touchMove" if step else "touchEnd"
        places = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(step)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


def open_selection(page: Page) -> list[int]:
    """Open the grid of a selection, and return its images."""
    page.locator(".map-selection a").click()
    page.wait_for_url("**/images?**")
    sources = page.locator(".grid img").evaluate_all("images => images.map((image) => image.src)")
    return [int(source.rpartition("/")[2]) for source in sources]


@on_both
def test_points_have_the_color_of_their_category(page: Page) -> None:
    expect(page.locator(".map-legend li")).to_have_count(3)
    colors = [read_point(page, x, y) for x, y in PLACES]
    series = choose_colors(["dress", "hat", "shoes"])
    assert colors == [read_variable(page, f"--series-{series[name]}") for name in ("dress", "dress", "hat", "shoes")]
    paper = "#ffffff"
    assert read_point(page, 0, 0) == paper
    page.locator(".map-legend button", has_text="dress").click()
    assert [read_point(page, x, y) for x, y in PLACES] == [paper, paper, *colors[2:]]
    page.locator(".map-legend button", has_text="dress").click()
    page.locator("[name=color]").select_option("confidence")
    by_confidence = [read_point(page, x, y) for x, y in PLACES]
    assert len(set(by_confidence)) == 4
    expect(page.locator(".map-ramp")).to_be_visible()


@on_both
def test_a_lasso_opens_its_images_in_the_grid(page: Page, browsed: BrowsedShop) -> None:
    if page.viewport_size == {"width": WIDE, "height": 900}:
        page.keyboard.down("Shift")
        draw_around(page, -9.5, 5, 3)
        page.keyboard.up("Shift")
    else:
        page.get_by_role("button", name="Lasso").click()
        touch(page, *([find_place(page, x, y)] for x, y in ((-7, 1), (-7, 7), (-10, 8), (-12, 5), (-10, 2))))
    expect(page.get_by_role("status")).to_have_text("2 images selected: 2 dress")
    expect(page.get_by_role("link", name="Open 2 images")).to_be_focused()
    assert sorted(open_selection(page)) == browsed.image_ids[:2]


def test_a_lasso_around_nothing_selects_nothing(page: Page) -> None:
    page.get_by_role("button", name="Lasso").click()
    draw_around(page, 0, 0, 2)
    expect(page.get_by_role("status")).to_have_text("No image is in this area.")
    expect(page.locator(".map-selection a")).to_be_hidden()


def test_the_keyboard_selects_what_is_in_view(page: Page, browsed: BrowsedShop) -> None:
    canvas = page.locator(".map-points")
    canvas.focus()
    for _ in range(3):
        page.keyboard.press("+")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    for _ in range(40):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Open this image")).to_be_focused()
    assert open_selection(page) == browsed.image_ids[2:3]


def test_only_one_visible_category_is_opened(page: Page, browsed: BrowsedShop) -> None:
    for hidden in ("dress", "shoes"):
        page.locator(".map-legend button", has_text=hidden).click()
    page.get_by_role("button", name="Select view").click()
    expect(page.get_by_role("status")).to_have_text("1 image selected: 1 hat")
    assert open_selection(page) == browsed.image_ids[2:3]


def test_images_of_hidden_categories_are_not_selected(page: Page, browsed: BrowsedShop) -> None:
    page.locator(".map-legend button", has_text="hat").click()
    page.get_by_role("button", name="Select view").click()
    status, link = page.get_by_role("status"), page.locator(".map-selection a")
    expect(status).to_have_text("3 images selected: 2 dress, 1 shoes. The grid also shows 1 of hidden categories.")
    expect(link).to_have_text("Open 4 images")
    for hidden in ("dress", "shoes"):
        page.locator(".map-legend button", has_text=hidden).click()
    expect(status).to_have_text("All images in this area are hidden.")
    expect(link).to_be_hidden()
    page.locator(".map-legend button", has_text="hat").click()
    page.locator(".map-legend button", has_text="dress").click()
    expect(status).to_have_text("3 images selected: 2 dress, 1 hat. The grid also shows 1 of hidden categories.")
    assert sorted(open_selection(page)) == browsed.image_ids[:4]


def test_an_area_larger_than_the_map_opens_the_grid(page: Page, url: str) -> None:
    query = page.evaluate("""async () => {
        const { describe, selectPoints } = await import("/catalog/static/map_selection.js");
        const points = { count: 1, x: [32767], y: [0], category: [0], categories: [{ name: "hat" }] };
        const polygon = [[-2e5, -2e5], [2e5, -2e5], [2e5, 2e5], [-2e5, 2e5]];
        return String(describe(selectPoints(points, polygon), points, new Set()).query);
    }""")
    answer = page.goto(f"{url}/catalog/images?{query}")
    assert answer is not None
    assert answer.status == 200


def test_dragging_and_zooming_move_the_map(page: Page) -> None:
    x, y = find_place(page, 0, 0)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y, steps=3)
    page.mouse.up()
    left, top = find_place(page, *PLACES[2])
    box = page.locator(".map-points").bounding_box()
    assert box is not None
    before, after = [(int(top - box["y"]), int(left - box["x"] - moved)) for moved in (0, 30)]
    wait_for_pixels(page, lambda pixels: (pixels[after] < 255).any() and (pixels[before] == 255).all())
    page.keyboard.press("0")
    page.mouse.move(left, top)
    page.mouse.wheel(0, -1500)
    # The point under the mouse stays there, up to the rounding of the mouse's place, and the others leave the frame.
    row, column = int(top - box["y"]), int(left - box["x"])
    wait_for_pixels(
        page,
        lambda pixels: (
            (pixels[:, : pixels.shape[1] // 2] == 255).all()
            and (pixels[row - 10 : row + 10, column - 10 : column + 10] < 255).any()
        ),
    )


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_two_fingers_zoom(page: Page) -> None:
    x, y = find_place(page, *PLACES[2])
    touch(page, *([(x, y - distance), (x, y + distance)] for distance in (5, 10, 20, 40, 60)))
    page.wait_for_timeout(200)
    # The points on the left have left the frame.
    wait_for_pixels(page, lambda pixels: (pixels[:, : pixels.shape[1] // 2] == 255).all() and (pixels < 255).any())


def test_a_point_shows_its_image_and_leads_to_its_product(page: Page, browsed: BrowsedShop) -> None:
    page.mouse.move(*find_place(page, *PLACES[2]))
    card = page.locator(".map-card")
    expect(card).to_contain_text("hat")
    expect(card).to_contain_text("confidence 95 %")
    page.mouse.move(*find_place(page, 0, 0))
    expect(card).to_be_hidden()
    with browsed.shop.connections.engine.begin() as connection:
        label_image(connection, browsed.image_ids[2], "hat")
    page.reload()
    expect(page.get_by_role("status")).to_have_text("4 images")
    page.mouse.move(*find_place(page, *PLACES[2]))
    expect(card).to_contain_text("Reviewed")
    page.mouse.click(*find_place(page, *PLACES[3]))
    card.get_by_role("link", name="Open product").click()
    page.wait_for_url("**/product?id=P3")


@on_both
def test_the_page_is_accessible_and_fits(page: Page) -> None:
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.get_by_role("button", name="Select view").click()
        found = Axe().run(page)["violations"]
        assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
