"""Kill, stop and repeat a job that tags a shard."""

from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import FinishedCommand, run_job
from fixtures.job_processes import start_job, wait_until
from fixtures.shop import Shop, make_image
from jobs.errors import EXIT_RETRY
from jobs.ingest.plan import IngestOptions, plan_run

RESULTS = {
    "tags": """
        SELECT object_key, category, confidence, top_3::text, probabilities, t.content_hash::text
        FROM catalog.image_tags t JOIN catalog.images USING (image_id) ORDER BY 1
    """,
    "vectors": """
        SELECT object_key, embedding::text FROM catalog.image_embeddings JOIN catalog.images USING (image_id) ORDER BY 1
    """,
    "failures": """
        SELECT object_key, stage, reason, detail, attempts
        FROM catalog.item_failures JOIN catalog.images USING (image_id) ORDER BY 1
    """,
    "images": "SELECT object_key, content_hash::text, width, height FROM catalog.images ORDER BY 1",
    "ledger": """
        SELECT shard, chunk, entries, tagged, reused, failed
        FROM catalog.run_chunks WHERE run_id = :run ORDER BY 1, 2
    """,
}


def fill(shop: Shop) -> None:
    """Upload enough images, copies and broken files for several chunks."""
    shop.put_images(40)
    for number in range(6):
        shop.put(f"twin{number}_1.jpg", make_image(number))
        shop.put(f"broken{number}_1.jpg", make_image(number)[:200])


def start_shard(shop: Shop, run_id: str, messages: Path) -> ForkServerProcess:
    return start_job("tag-shard", "0", "--run", run_id, environment=shop.environment, messages=messages)


def run_shard(shop: Shop, run_id: str) -> FinishedCommand:
    return run_job("tag-shard", "0", "--run", run_id, environment=shop.environment)


def read_results(shop: Shop, run_id: str) -> dict[str, list[Any]]:
    return {
        name: shop.query(statement, **({"run": run_id} if ":run" in statement else {}))
        for name, statement in RESULTS.items()
    }


def forget(shop: Shop) -> None:
    """Delete all results, which makes every image due again."""
    with shop.connections.engine.begin() as connection:
        for table in ("image_tags", "image_embeddings", "item_failures"):
            connection.exec_driver_sql(f"DELETE FROM catalog.{table}")
        connection.exec_driver_sql("UPDATE catalog.images SET content_hash = NULL, width = NULL, height = NULL")


def count_chunks(shop: Shop, run_id: str) -> int:
    ((done,),) = shop.query("SELECT count(*) FROM catalog.run_chunks WHERE run_id = :run", run=run_id)
    return int(done)


def wait_for_chunks(shop: Shop, run_id: str, wanted: int, process: ForkServerProcess) -> None:
    """Wait until the shard has committed ``wanted`` chunks."""
    wait_until(lambda: not process.is_alive() or count_chunks(shop, run_id) >= wanted)
    assert process.is_alive(), "the shard ended before it was disturbed"


@pytest.mark.timeout(600)
def test_repeated_kills_give_the_same_tables(tagging_shop: Shop, tmp_path: Path) -> None:
    environment = tagging_shop.environment | {"CATALOG_BATCH_SIZE": "1"}
    connections = tagging_shop.with_settings(chunk_size=4, batch_size=1, shard_size=100)
    shop = Shop(connections, tagging_shop.bucket_folder, environment)
    fill(shop)
    plan_run(shop.connections, "undisturbed", IngestOptions())
    assert run_shard(shop, "undisturbed").exit_code == 0
    expected = read_results(shop, "undisturbed")
    assert (len(expected["tags"]), len(expected["failures"]), len(expected["ledger"])) == (46, 6, 13)
    forget(shop)
    plan_run(shop.connections, "disturbed", IngestOptions())
    for chunks in (1, 4):
        process = start_shard(shop, "disturbed", tmp_path / "messages")
        wait_for_chunks(shop, "disturbed", chunks, process)
        process.kill()
        process.join()
        assert chunks <= count_chunks(shop, "disturbed") < 13, "the kill did not come in the middle of the shard"
    finished = run_shard(shop, "disturbed")
    assert finished.exit_code == 0, finished.messages
    assert read_results(shop, "disturbed") == expected


def test_sigterm_ends_after_a_chunk_and_the_next_call_resumes(tagging_shop: Shop, tmp_path: Path) -> None:
    tagging_shop.put_images(120)
    environment = tagging_shop.environment | {"CATALOG_BATCH_SIZE": "1"}
    connections = tagging_shop.with_settings(chunk_size=2, batch_size=1, shard_size=120)
    shop = Shop(connections, tagging_shop.bucket_folder, environment)
    plan_run(shop.connections, "run", IngestOptions())
    process = start_shard(shop, "run", tmp_path / "messages")
    wait_for_chunks(shop, "run", 1, process)
    process.terminate()
    process.join(120)
    assert process.exitcode == 143, (tmp_path / "messages").read_text()
    done = count_chunks(shop, "run")
    assert 0 < done < 60
    tagged = shop.query("SELECT count(*) FROM catalog.image_tags")
    assert tagged == [(2 * done,)]
    assert run_shard(shop, "run").exit_code == 0
    assert shop.query("SELECT count(*) FROM catalog.image_tags") == [(120,)]


def test_a_shard_locked_by_another_process_is_not_tagged(tagging_shop: Shop) -> None:
    tagging_shop.put_images(3)
    plan_run(tagging_shop.connections, "run", IngestOptions())
    with tagging_shop.connections.engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended('run/0', 0))")
        answer = run_shard(tagging_shop, "run")
    assert (answer.exit_code, answer.output) == (EXIT_RETRY, "")
    assert "another process is tagging shard 0" in answer.error


def test_a_finished_shard_loads_no_model(tagging_shop: Shop) -> None:
    tagging_shop.put_images(3)
    plan_run(tagging_shop.connections, "run", IngestOptions())
    has_loaded = []
    for _ in range(2):
        answer = run_shard(tagging_shop, "run")
        assert answer.exit_code == 0, answer.messages
        has_loaded.append(any("loaded classifier" in line for line in answer.messages))
    assert has_loaded == [True, False]
