"""Pages of runs: live progress, and failures that people retry or ignore."""

import re
from dataclasses import replace

import pytest
from sqlalchemy import text

from fixtures.catalog_rows import fail_images, start_run
from fixtures.gate_results import store_gate_results
from jobs.charts import OTHER_COLOR, choose_colors
from jobs.database.job_progress import JobProgress, upsert_job_progress
from jobs.database.recall_checks import RecallCheck, insert_checks
from jobs.database.run_history import sum_chunks
from jobs.database.spaces import find_live_space
from jobs.database.tagging_runs import ChunkCounts, finish_run, insert_chunk
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Visit, read_text

RUN = "model_retrain/manual__2026-01-01T00:00:00+00:00"
TRAINING = JobProgress("training", 1240, 5000, "images", 2, 8, 0.5116, 36.4, 104.2)


def start_job(browsed: BrowsedShop, run: str, task: str, progress: JobProgress = TRAINING) -> None:
    with browsed.shop.connections.engine.begin() as connection:
        upsert_job_progress(connection, run, task, progress, seconds_running=31)


def test_running_jobs_are_on_the_overview_and_on_their_run(visit: Visit, browsed: BrowsedShop) -> None:
    viewer = visit("viewer")
    assert "Running now" not in read_text(viewer.get("overview").text)
    start_job(browsed, RUN, "classifier.train")
    start_job(browsed, "catalog_retag/1", "tag_shard[0]", JobProgress("loading the models"))
    overview = viewer.get("overview")
    words = read_text(overview.text)
    for part in ("classifier.train training 1,240 of 5,000 images 36.4 2 min 2 of 8 0.512 31 s", "tag_shard[0]"):
        assert part in words
    assert '<progress max="5000" value="1240"' in overview.text
    assert "no update" not in words
    # A retraining is not a tagging run, but its page shows its progress while it runs.
    own = viewer.get("run", run=RUN)
    assert own.status_code == 200
    assert "classifier.train" in own.text
    assert "tag_shard" not in own.text
    assert viewer.get("run", run="model_retrain/ended").status_code == 404


def test_the_progress_fragment_is_not_a_whole_page(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, RUN, "classifier.train")
    viewer = visit("viewer")
    page = viewer.get("run", run=RUN).text
    address = page.partition('data-progress="/catalog/')[2].partition('"')[0].replace("&amp;", "&")
    part = viewer.client.get(f"/catalog/{address}")
    assert "classifier.train" in part.text
    assert "<html" not in part.text
    assert viewer.get("progress").text.count("<tr>") == 2
    assert visit(None).get("progress").status_code == 401


def test_a_job_without_updates_is_marked(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, RUN, "classifier.train")
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.job_progress SET updated_at = now() - interval '5 minutes'"))
    assert "no update for 5 min" in read_text(visit("viewer").get("progress").text)


def test_hostile_names_are_escaped(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, HOSTILE, HOSTILE, JobProgress(HOSTILE, 1, 2, HOSTILE))
    for page in ("overview", "progress"):
        answer = visit("viewer").get(page)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text


STATE = "SELECT retry_requested_by, ignored_by FROM catalog.item_failures"


@pytest.fixture
def failed(browsed: BrowsedShop) -> int:
    """The image without a tag failed, with hostile details."""
    image_id = browsed.image_ids[4]
    with browsed.shop.connections.engine.begin() as connection:
        space: int = connection.execute(text("SELECT catalog.live_space()")).scalar_one()
        start_run(connection, browsed.classifier, space, "run")
        fail_images(connection, [image_id], "run", HOSTILE)
    return image_id


def test_failures_are_shown(visit: Visit, failed: int) -> None:
    page = visit("viewer").get("failures").text
    assert "truncated while decoding" in read_text(page)
    assert f"/thumbnails/{failed}" in page
    assert "<script>alert" not in page
    assert "checkbox" not in page


def test_retries_and_ignored_failures_record_the_user(visit: Visit, failed: int, browsed: BrowsedShop) -> None:
    reviewer = visit("user")
    assert reviewer.post("failures", {"image": [failed], "decision": "retry"}).status_code == 303
    assert browsed.shop.query(STATE) == [("user@example.test", None)]
    assert "retry requested by user@example.test" in reviewer.get("failures").text
    assert reviewer.post("failures", {"image": [failed], "decision": "ignore"}).status_code == 303
    assert browsed.shop.query(STATE) == [(None, "user@example.test")]
    assert "No image has failed" in reviewer.get("failures").text
    assert "ignored by user@example.test" in reviewer.get("failures", ignored=True).text
    back = reviewer.post("failures", {"image": [failed], "decision": "retry", "ignored": "true"})
    assert back.headers["location"] == "/catalog/failures?ignored=True"
    assert browsed.shop.query(STATE) == [("user@example.test", None)]


@pytest.mark.parametrize(
    "data", [{"decision": "retry"}, {"image": ["x"], "decision": "retry"}, {"image": ["1"], "decision": "drop"}]
)
def test_invalid_forms_change_nothing(visit: Visit, failed: int, browsed: BrowsedShop, data: dict[str, object]) -> None:
    assert visit("user").post("failures", data).status_code == 422
    assert browsed.shop.query(STATE) == [(None, None)]


def test_the_bottleneck_of_a_run_is_shown_with_advice(visit: Visit, browsed: BrowsedShop) -> None:
    ((classifier, space),) = browsed.shop.query("""
        SELECT model_version_id, catalog.live_space() FROM catalog.live_models WHERE kind = 'classifier'
    """)
    with browsed.shop.connections.engine.begin() as connection:
        start_run(connection, classifier, space)
        report = '{"bottleneck": "decode", "advice": "Use a machine with more cores"}'
        connection.execute(text("UPDATE catalog.tagging_runs SET report = :report"), {"report": report})
    words = read_text(visit("viewer").get("run", run="run").text)
    assert "Bottleneck: decode. Use a machine with more cores." in words


TIME = "2026-11-27T10:15:00+00:00"
INGEST = f"catalog_ingest/scheduled__{TIME}"


def add_run(browsed: BrowsedShop, run_id: str, hours_ago: int, entries: int = 0) -> None:
    """Add a finished run that tagged ``entries`` images, most of which are hats."""
    ((space,),) = browsed.shop.query("SELECT catalog.live_space()")
    counts = ChunkCounts(entries, entries, 0, 0, {}, 1, 1, 1, 1, 1, category_counts={"hat": 2, "dress": 1, "old": 1})
    with browsed.shop.connections.engine.begin() as connection:
        start_run(connection, browsed.classifier, space, run_id, entries=entries)
        if entries:
            insert_chunk(connection, run_id, 0, 0, counts)
        finish_run(connection, run_id, "succeeded", {}, sum_chunks(connection, run_id))
        connection.execute(
            text(
                "UPDATE catalog.tagging_runs SET started_at = now() - make_interval(hours => :ago) WHERE run_id = :run"
            ),
            {"ago": hours_ago, "run": run_id},
        )


def test_runs_have_the_same_title_on_all_pages(visit: Visit, browsed: BrowsedShop, failed: int) -> None:
    add_run(browsed, INGEST, 5, entries=4)
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.item_failures SET run_id = :run"), {"run": INGEST})
    start_job(browsed, INGEST, "report")
    viewer = visit("viewer")
    pages = [viewer.get("overview"), viewer.get("failures"), viewer.get("run", run=INGEST), viewer.get("progress")]
    for page in pages:
        assert "Ingestion of 27 Nov 2026, 10:15" in read_text(page.text)
    assert f'<small class="mono">{INGEST}</small>' in pages[2].text
    assert f">{INGEST}<" not in pages[0].text
    other = viewer.get("run", run=f"model_retrain/manual__{TIME}")
    assert (other.status_code, "Retraining of 27 Nov 2026, 10:15" in other.text) == (404, True)


def test_runs_without_new_images_are_folded(visit: Visit, browsed: BrowsedShop) -> None:
    for hours_ago, (run_id, entries) in enumerate([("a", 0), ("b", 3), ("c", 0), ("d", 0), ("e", 0), ("f", 2)]):
        add_run(browsed, run_id, hours_ago, entries)
    overview = visit("viewer").get("overview").text
    table = read_text(overview.partition("Recent runs</h2>")[2])
    assert re.search(r"Ingestion of [\w ]+, [\d:]+ without new images Ingestion of", table)
    assert "3 runs without new images" in table
    assert all(f"run={run_id}" in overview for run_id in "abcdef")


def test_categories_have_the_same_color_on_all_pages(visit: Visit, browsed: BrowsedShop) -> None:
    add_run(browsed, INGEST, 5, entries=4)
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(
            text("UPDATE catalog.model_versions SET categories = '{dress,hat,shoes}' WHERE kind = 'classifier'")
        )
    viewer = visit("viewer")
    overview, run = viewer.get("overview").text, viewer.get("run", run=INGEST).text
    # The most frequent category is not the first one. One of an earlier classifier has no color of its own.
    colors = choose_colors(["dress", "hat", "shoes"]) | {"old": OTHER_COLOR}
    for category in ("dress", "hat", "old"):
        color = colors[category]
        assert f'<i class="swatch series-{color}"></i>{category}' in overview
        assert re.search(rf'<i class="swatch series-{color}"></i><a [^>]*>{category}</a>', run)


def test_a_retraining_links_to_its_candidates(visit: Visit, browsed: BrowsedShop) -> None:
    run_id = f"model_retrain/manual__{TIME}"
    with browsed.shop.connections.engine.begin() as connection:
        store_gate_results(connection, run_id, "classifier", browsed.classifier)
    page = visit("viewer").get("run", run=run_id)
    assert page.status_code == 200
    assert f'href="/catalog/models/{browsed.classifier}"' in page.text


def test_actions_on_failures_need_a_selection(visit: Visit, failed: int) -> None:
    page = visit("user").get("failures").text
    assert page.count('data-needs="image"') == 2
    assert "Select images to retry or ignore them." in page
    assert "Retry selected" in read_text(page)
    assert "Ignore until the file changes" in page


def test_the_overview_charts_recall_and_warns_if_it_is_low(visit: Visit, browsed: BrowsedShop) -> None:
    add_run(browsed, INGEST, 5, entries=4)
    viewer = visit("viewer")
    assert "Neighbors that searches miss" not in viewer.get("overview").text
    with browsed.shop.connections.engine.begin() as connection:
        space = find_live_space(connection)
        assert space is not None
        fine = RecallCheck(space, None, 200, 0.98, 0.97, 0.99, 0.95, 5, 9)
        insert_checks(connection, [fine, replace(fine, category=HOSTILE, recall=0.9, low=0.88, high=0.92)])
    overview = viewer.get("overview").text
    words = read_text(overview)
    assert "Neighbors that searches miss" in words
    assert "95th percentile of searches, ms" in words
    assert "Low recall." in words
    assert "find 0.900 of the true neighbors (0.880 to 0.920), less than 0.95." in words
    assert "without a category find" not in words
    assert "<script>alert" not in overview
