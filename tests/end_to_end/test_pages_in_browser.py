"""Use the pages in a real browser with a real Airflow."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import expect
from sqlalchemy import text

from fixtures.gate_results import store_gate_results
from jobs.errors import PermanentError
from jobs.retrain.gates.evaluation_page import PageContents, render_page
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import decide_all
from jobs.storage.locations import S3Uri
from tests.end_to_end.live_stack import LiveStack, wait_until
from tests.end_to_end.pages_browser import CHROMIUM, PATIENCE_SECONDS, PagesBrowser, open_browser
from tests.end_to_end.seeded_catalog import NAME, WORDS, seed_catalog
from tests.end_to_end.take_screenshots import WIDTHS
from tests.retrain.gates.sample_evaluations import CLASSIFIER, make_evaluation

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium"),
]
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="module")
def catalog(stack: LiveStack, tmp_path_factory: pytest.TempPathFactory) -> LiveStack:
    """Fill the stack with images, tags, vectors and champions."""
    seed_catalog(stack, tmp_path_factory.mktemp("seed"))
    return stack


@pytest.fixture(scope="module")
def window(catalog: LiveStack) -> Iterator[PagesBrowser]:
    """Open a browser that is logged in as the administrator."""
    status = catalog.status
    assert status.airflow_url is not None
    assert status.password is not None
    with open_browser(status.airflow_url, status.username, status.password) as browser:
        yield browser


@pytest.fixture
def browser(window: PagesBrowser) -> Iterator[PagesBrowser]:
    """Open Airflow's home page. After the test, check that no request left the machine and no script failed."""
    window.go_home()
    yield window
    window.resize(1280)
    external, errors = window.take_records()
    assert external == []
    assert errors == []


def test_the_overview_is_in_the_navigation_of_airflow(browser: PagesBrowser) -> None:
    browser.page.get_by_role("link", name="Catalog", exact=True).click()
    frame = browser.page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Overview")).to_be_visible()
    expect(frame.get_by_text("classifier, champion")).to_be_visible()


def test_search_links_to_a_product_and_similar_products(browser: PagesBrowser) -> None:
    page = browser.page
    browser.open("search")
    page.keyboard.press("/")
    page.keyboard.type(WORDS)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=WORDS)).to_be_visible()
    first = page.locator("ul.grid > li").first
    expect(first).to_contain_text(NAME)
    expect(page.locator("textarea.sql")).to_have_value(
        f"SELECT * FROM catalog.search_products('{WORDS}', 25) LIMIT 24;"
    )
    first.get_by_role("link", name=NAME, exact=True).click()
    expect(page.get_by_role("heading", name=NAME)).to_be_visible()
    expect(page.get_by_role("heading", name="Similar products")).to_be_visible()
    expect(page.locator("section img").first).to_have_js_property("complete", True)
    page.get_by_role("link", name="More like this", exact=True).click()
    expect(page.get_by_role("heading", name="Similar to")).to_be_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_filters_are_removed_by_keyboard_and_by_touch(window: PagesBrowser, catalog: LiveStack, width: int) -> None:
    assert window.page.context.browser is not None
    context = window.page.context.browser.new_context(
        viewport={"width": width, "height": 800}, has_touch=True, storage_state=window.page.context.storage_state()
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    [(category,)] = catalog.query("SELECT min(category) FROM catalog.current_image_tags")
    page.goto(f"{window.url}/catalog/images?category={category}&min_confidence=0&max_confidence=90&sort=most_confident")
    chips = page.get_by_role("list", name="Filters").get_by_role("listitem")
    expect(chips).to_have_count(3)
    expect(page.get_by_role("status")).to_contain_text("image")
    page.get_by_role("link", name="Copy link").click()
    expect(page.get_by_text("Link copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    for chip in chips.all():
        box = chip.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    by_category = page.get_by_role("link", name=f"Remove filter: {category}")
    by_category.focus()
    page.keyboard.press("Enter")
    expect(chips).to_have_count(1)
    filters = page.locator("form.filters")
    expect(filters.get_by_label("category")).to_have_value("")
    page.get_by_role("link", name="Remove filter: confidence 0 to 90 %").tap()
    expect(chips).to_have_count(0)
    expect(filters.get_by_label("sort")).to_have_value("most_confident")
    page.go_back()
    expect(chips).to_have_count(1)

    found = Axe().run(page)
    assert [rule["id"] for rule in found["violations"] if rule["impact"] in {"serious", "critical"}] == []
    context.close()


def test_images_are_reviewed_by_keyboard(browser: PagesBrowser, catalog: LiveStack) -> None:
    page = browser.page
    browser.open("review")
    expected = []
    for key in ("1", "2", "0", "/", "3"):
        image_id = page.locator("form.answers input[name=image_id]").get_attribute("value")
        assert image_id is not None
        if key == "/":
            page.keyboard.press("/")
            page.keyboard.type("hoodie")
            answer = "hoodie"
            page.keyboard.press("Enter")
        else:
            answer = page.locator(f'form.answers [data-key="{key}"]').get_attribute("value") or ""
            page.keyboard.press(key)
        expected.append((int(image_id), answer))
        expect(page.locator("ul.past > li")).to_have_count(len(expected))
        expect(page.locator("ul.past > li").first).to_contain_text(f": {answer}")
    statement = """
        SELECT l.image_id, l.category FROM catalog.labels l JOIN catalog.reviews r USING (label_id)
        WHERE l.labeled_by = 'admin' AND r.reviewed_by = 'admin' ORDER BY review_id
    """
    assert catalog.query(statement) == expected
    page.keyboard.press("u")
    expect(page.locator("ul.past > li").first).to_contain_text("undone")
    assert catalog.query(statement) == expected[:-1]
    in_force = dict(catalog.query("SELECT image_id, category FROM catalog.current_image_tags WHERE source = 'human'"))
    assert in_force == dict(expected[:-1])


def test_a_promotion_and_a_rollback_are_in_the_history(browser: PagesBrowser, catalog: LiveStack) -> None:
    page = browser.page
    candidate, champion = add_twin(catalog)
    browser.open(f"models/{champion}")
    expect(page.locator("table.gates")).to_contain_text("not worse than champion")
    expect(page.locator("table.gates")).to_contain_text("passed")
    browser.open("models")
    page.get_by_role("link", name="Promote…").click()
    expect(page.get_by_role("heading", name=f"Promote classifier {candidate}?")).to_be_visible()
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_text("Done. See the history")).to_be_visible(timeout=120_000)
    wait_until_live(catalog, candidate)
    browser.open("models")
    page.get_by_role("link", name=f"Roll back to classifier {champion}").click()
    expect(page.get_by_text("category changes for")).to_be_visible()
    page.get_by_label("reason").fill("a twin is enough of one")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("Done. See the history")).to_be_visible(timeout=120_000)
    wait_until_live(catalog, champion)
    browser.open("models")
    latest = page.locator("ol.timeline > li").first
    expect(latest).to_contain_text("rollback")
    expect(latest).to_contain_text("by admin: a twin is enough of one")


def test_starting_the_dag_promotes_nothing(catalog: LiveStack) -> None:
    champions = catalog.query("SELECT * FROM catalog.champion_models")
    with pytest.raises(PermanentError, match="decision"):
        catalog.start_dag("model_decision", {})
    run = catalog.run_dag("model_decision", decision=1_000_000)
    assert (run.state, catalog.read_states(run)) == ("failed", {"decide": "failed"})
    assert catalog.query("SELECT * FROM catalog.champion_models") == champions


@pytest.mark.usefixtures("failure")
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_no_page_has_a_serious_accessibility_problem(
    browser: PagesBrowser, catalog: LiveStack, theme: str, width: int
) -> None:
    browser.choose_theme(theme)
    browser.resize(width)
    violations = {}
    for path in list_paths(catalog):
        browser.open(path)
        found = Axe().run(browser.page)
        assert found["passes"], path
        serious = [rule for rule in found["violations"] if rule["impact"] in {"serious", "critical"}]
        if serious:
            violations[path] = [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in serious]
    assert not violations, json.dumps(violations, indent=1)


@pytest.mark.usefixtures("failure")
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_window(browser: PagesBrowser, catalog: LiveStack, width: int) -> None:
    browser.resize(width)
    for path in list_paths(catalog):
        browser.open(path)
        assert browser.page.evaluate("document.documentElement.scrollWidth") <= width, path
        navigation = browser.page.locator("nav.pages")
        tops = navigation.evaluate("nav => [...nav.querySelectorAll('a')].map((link) => link.offsetTop)")
        assert len(set(tops)) == 1, path
        expect(navigation.locator("[aria-current]").or_(browser.page.locator("h1")).first).to_be_in_viewport()
        for table in browser.page.locator("table.cards").all():
            is_wide = width > 640
            assert table.locator("thead").is_visible() == is_wide, path
            display = table.locator("tbody > tr").first.evaluate("row => getComputedStyle(row).display")
            assert display == ("table-row" if is_wide else "block"), path


@pytest.mark.parametrize("width", WIDTHS)
def test_a_large_confusion_matrix_is_not_cut_off(browser: PagesBrowser, width: int) -> None:
    browser.resize(width)
    names = [f"category-{number}" for number in range(40)]
    scores = replace(
        CLASSIFIER.classifier,  # type: ignore[type-var]
        categories=names,
        images_by_category=dict.fromkeys(names, 80),
        recall_by_category=dict.fromkeys(names, 0.5),
        confusion=[[2] * len(names) for _ in names],
    )
    metrics = replace(CLASSIFIER, classifier=scores)
    evaluation = make_evaluation("classifier", metrics.as_record())
    decisions = decide_all(evaluation, has_tagged_catalog=True, policy=load_gate_policy())
    # Not on a page of Airflow, whose scripts fail if its content is replaced.
    browser.page.goto("about:blank")
    browser.page.set_content(render_page(PageContents(evaluation, metrics, decisions, [], [], [])))
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= width
    matrix = browser.page.locator(".matrix")
    assert matrix.evaluate("box => [...box.querySelectorAll('td')].every((cell) => cell.offsetWidth >= 3)")
    assert matrix.evaluate("box => box.querySelector('table').offsetWidth <= box.clientWidth")


def test_failures_are_selected_by_keyboard(browser: PagesBrowser, catalog: LiveStack, failure: int) -> None:
    page = browser.page
    browser.open("failures")
    retry = page.locator('button[value="retry"]')
    expect(retry).to_be_disabled()
    expect(page.get_by_text("Select images to retry or ignore them.")).to_be_visible()
    page.keyboard.press("r")
    page.keyboard.press("a")
    expect(retry).to_contain_text(f"Retry {page.locator('input[name=image]').count()} selected")
    expect(page.get_by_text("Select images to retry or ignore them.")).to_be_hidden()
    page.keyboard.press("a")
    expect(retry).to_be_disabled()
    page.locator(f'input[value="{failure}"]').focus()
    page.keyboard.press("Space")
    expect(retry).to_contain_text("Retry 1 selected")
    page.keyboard.press("r")
    expect(page.get_by_text("retry requested by admin")).to_be_visible()
    statement = "SELECT image_id FROM catalog.item_failures WHERE retry_requested_by IS NOT NULL"
    assert catalog.query(statement) == [(failure,)]


def test_a_login_leads_back_to_the_page(browser: PagesBrowser, catalog: LiveStack) -> None:
    page, status = browser.page, catalog.status
    assert status.password is not None
    page.get_by_role("link", name="Catalog", exact=True).click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Models", exact=True).click()
    expect(frame.get_by_role("heading", name="Models")).to_be_visible()
    page.context.clear_cookies()
    frame.get_by_role("link", name="Failures", exact=True).click()
    frame.get_by_role("button", name="Log in").click()
    browser.fill_login(status.username, status.password)
    expect(frame.get_by_role("heading", name="Failures")).to_be_visible()
    page.context.clear_cookies()
    browser.open("images?text=a%20b&category=dress")
    browser.fill_login(status.username, status.password)
    page.wait_for_url("**/catalog/images?text=a%20b&category=dress")
    page.goto(f"{browser.url}/catalog")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@pytest.fixture
def failure(catalog: LiveStack) -> Iterator[int]:
    """An image that failed in the run of the catalog, with a long word in its details."""
    with catalog.connect() as connections, connections.engine.begin() as connection:
        image_id: int = connection.execute(
            text("""
                INSERT INTO catalog.item_failures (image_id, etag, stage, reason, detail, run_id)
                SELECT image_id, etag, 'decode', 'truncated', repeat('long', 60), run_id
                FROM catalog.images, catalog.tagging_runs ORDER BY image_id LIMIT 1 RETURNING image_id
            """)
        ).scalar_one()
    yield image_id
    with catalog.connect() as connections, connections.engine.begin() as connection:
        connection.execute(text("DELETE FROM catalog.item_failures WHERE image_id = :image"), {"image": image_id})


def list_paths(catalog: LiveStack) -> list[str]:
    """Return the path of every page, and of an error."""
    [(run,)] = catalog.query("SELECT run_id FROM catalog.tagging_runs ORDER BY entries DESC LIMIT 1")
    [(product,)] = catalog.query("SELECT product_id FROM catalog.current_product_tags ORDER BY 1 LIMIT 1")
    [(version,)] = catalog.query("SELECT model_version_id FROM catalog.champion_models WHERE kind = 'classifier'")
    paths = [
        "overview",
        "images",
        f"product?id={product}",
        "search?q=a+red+dress",
        "map",
        "review",
        "models",
        "failures",
    ]
    return [*paths, f"run?run={run.replace('+', '%2B')}", f"models/{version}", "product?id=no-such"]


def add_twin(catalog: LiveStack) -> tuple[int, int]:
    """Add a candidate that passed its gates, with the champion's weights and tags. Return the ids of both versions."""
    with catalog.connect() as connections, connections.engine.begin() as connection:
        store = connections.store
        champion, uri = connection.execute(
            text("SELECT model_version_id, artifact_uri FROM catalog.live_models WHERE kind = 'classifier'")
        ).one()
        original, copy = S3Uri.parse(uri).as_folder(), S3Uri.parse(f"{uri.rstrip('/')}-twin").as_folder()
        for listed in (item for items in store.list_pages(original) for item in items):
            name = listed.key.removeprefix(original.key)
            store.write(copy / name, store.read(original / name))
        candidate = connection.execute(
            text("""
                INSERT INTO catalog.model_versions (kind, artifact_uri, weights_sha256, preprocessing, categories,
                                                    dimensions, metrics, data_snapshot, code_version)
                SELECT kind, replace(artifact_uri, :old, :new), weights_sha256, preprocessing, categories,
                       dimensions, metrics, data_snapshot, code_version
                FROM catalog.model_versions WHERE model_version_id = :champion
                RETURNING model_version_id
            """),
            {"old": uri, "new": f"{uri.rstrip('/')}-twin" + ("/" if uri.endswith("/") else ""), "champion": champion},
        ).scalar_one()
        for table in ("image_tags", "product_tags"):
            columns = [
                row[0]
                for row in connection.execute(
                    text("""
                        SELECT column_name FROM information_schema.columns
                        WHERE table_schema = 'catalog' AND table_name = :table ORDER BY ordinal_position
                    """),
                    {"table": table},
                )
            ]
            values = ", ".join(":candidate" if name == "classifier_version_id" else name for name in columns)
            connection.execute(
                text(f"""
                    INSERT INTO catalog.{table} ({", ".join(columns)})
                    SELECT {values} FROM catalog.{table} WHERE classifier_version_id = :champion
                """),
                {"candidate": candidate, "champion": champion},
            )
        store_gate_results(connection, "twin/1", "classifier", candidate)
    return candidate, champion


def wait_until_live(catalog: LiveStack, version: int) -> None:
    live = "SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'"
    wait_until(lambda: catalog.query(live) == [(version,)])
