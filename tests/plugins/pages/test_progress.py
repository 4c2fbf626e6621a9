"""Running jobs on the pages."""

from collections.abc import Callable

from sqlalchemy import text

from jobs.database.job_progress import JobProgress, upsert_job_progress
from tests.plugins.pages.conftest import HOSTILE, BrowsedShop, Role, Visitor, read_text

Visit = Callable[[Role | None], Visitor]
RUN = "model_retrain/manual__2026-01-01T00:00:00+00:00"
TRAINING = JobProgress("training", 1240, 5000, "photos", 2, 8, 0.5116, 36.4, 104.2)


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
    for part in ("classifier.train training 1,240 of 5,000 photos 36.4 2 of 8 0.512 2 min 31 s", "tag_shard[0]"):
        assert part in words
    assert '<progress max="5000" value="1240"' in overview.text
    assert "no news" not in words
    # A retraining has no page of a tagging run, and is no error while it goes on.
    own = viewer.get("run", run=RUN)
    assert own.status_code == 200
    assert "classifier.train" in own.text
    assert "tag_shard" not in own.text
    assert viewer.get("run", run="model_retrain/ended").status_code == 404


def test_the_part_that_is_loaded_again_is_no_whole_page(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, RUN, "classifier.train")
    viewer = visit("viewer")
    page = viewer.get("run", run=RUN).text
    address = page.partition('data-progress="/catalog/')[2].partition('"')[0].replace("&amp;", "&")
    part = viewer.client.get(f"/catalog/{address}")
    assert "classifier.train" in part.text
    assert "<html" not in part.text
    assert viewer.get("progress").text.count("<tr>") == 2
    assert visit(None).get("progress").status_code == 401


def test_a_job_without_news_is_not_shown_as_if_it_went_on(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, RUN, "classifier.train")
    with browsed.shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.job_progress SET updated_at = now() - interval '5 minutes'"))
    assert "no news for 5 min" in read_text(visit("viewer").get("progress").text)


def test_hostile_names_stay_names(visit: Visit, browsed: BrowsedShop) -> None:
    start_job(browsed, HOSTILE, HOSTILE, JobProgress(HOSTILE, 1, 2, HOSTILE))
    for page in ("overview", "progress"):
        answer = visit("viewer").get(page)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
