"""The state of the catalog on one screen."""

import json

from sqlalchemy import text

from fixtures.command_line import run_job, run_on_terminal
from fixtures.shop import Shop
from jobs.commands.status import CatalogStatus, format_sections, read_status
from jobs.database.engine import open_reading
from jobs.database.job_progress import JobProgress, upsert_job_progress
from jobs.database.model_coverage import WaitingImages


def read(shop: Shop) -> CatalogStatus:
    with open_reading(shop.connections.engine) as connection:
        return read_status(connection, shop.connections)


def test_an_empty_catalog_says_what_to_do_next(shop: Shop) -> None:
    answer = run_on_terminal("status", environment=shop.environment)
    assert answer.exit_code == 0, answer.messages
    lines = [line.strip() for line in answer.messages if line.strip()]
    assert lines[0] == "Catalog"
    assert "waiting    none since the last listing of the bucket" in lines
    assert any(line.startswith("Next: import labels and train with `catalog import-labels`") for line in lines)
    piped = run_job("status", environment=shop.environment)
    assert json.loads(piped.output)["runs"] == []


def test_the_next_step_follows_the_state(tagging_shop: Shop) -> None:
    assert read(tagging_shop).next_step == "`catalog ingest` tags every image in the bucket"
    tagging_shop.put_images(6)
    assert run_job("ingest", "--limit", "4", environment=tagging_shop.environment).exit_code == 0
    state = read(tagging_shop)
    assert (state.waiting.unread, state.waiting.untagged_share) == (2, 0)
    assert state.next_step == "`catalog ingest` tags the waiting images"


def test_images_that_lost_their_tags_are_waiting(tagging_shop: Shop) -> None:
    tagging_shop.put_images(4)
    assert run_job("ingest", environment=tagging_shop.environment).exit_code == 0
    assert read(tagging_shop).waiting == WaitingImages(0, 0.0)
    with tagging_shop.connections.engine.begin() as connection:
        connection.execute(text("DELETE FROM catalog.image_tags WHERE image_id = 1"))
    assert read(tagging_shop).waiting == WaitingImages(0, 0.25)


def test_runs_models_failures_and_jobs_are_on_the_screen(tagging_shop: Shop) -> None:
    tagging_shop.put_images(6)
    tagging_shop.put("p0009_1.jpg", b"")
    assert run_job("ingest", environment=tagging_shop.environment).exit_code == 0
    with tagging_shop.connections.engine.begin() as connection:
        upsert_job_progress(connection, "night", "tag_shard[0]", JobProgress("tagging", 3, 6), 2.0)
    state = read(tagging_shop)
    sections = format_sections(state)
    assert list(sections) == ["Catalog", "Models", "Running now", "Last runs", "Open failures"]
    (run,) = sections["Last runs"].rows
    assert (run[0][:12], run[1], run[3], run[4]) == ("Ingestion of", "succeeded", "7", "1")
    assert [row[:3] for row in sections["Models"].rows] == [
        (one.champion.kind, str(one.champion.model_version_id), "live") for one in state.champions
    ]
    assert list(sections["Open failures"].rows) == [("empty file", "1", "replace the file")]
    assert sections["Running now"].rows == [("tag_shard[0]", "tagging, 3 of 6 images", "night")]
    assert state.waiting.unread == 0
    assert state.disk.database_bytes > 1_000_000
    as_json = json.loads(run_job("status", environment=tagging_shop.environment).output)
    assert as_json["runs"][0]["started_at"].endswith("Z")
