"""A retag that is killed in its shards, in a top-up or in the switch ends in the same state as an undisturbed one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.champions import make_champion
from fixtures.job_processes import count_waiting, start_job, wait_until
from fixtures.shop import Shop, TinyModels, make_image
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.retag.complete import complete_retag
from jobs.retag.retag import plan_retag, retag
from jobs.retag.rollback import roll_back
from jobs.search.by_text import embed_text_query
from jobs.search.encoders import load_text_embedder
from tests.ingest.catalog_watch import watch_catalog

WORDS = "hat"
LIVE = "SELECT model_version_id FROM catalog.live_models ORDER BY kind"
STATE = {
    "tags": """
        SELECT object_key, category, confidence, top_3::text, probabilities, t.content_hash::text
        FROM catalog.image_tags t JOIN catalog.images USING (image_id)
        WHERE classifier_version_id = (SELECT max(classifier_version_id) FROM catalog.tagging_runs) ORDER BY 1
    """,
    "products": "SELECT product_id, category, confidence, images FROM catalog.current_product_tags ORDER BY 1",
    "vectors": """
        SELECT object_key, embedding::text FROM catalog.image_embeddings e JOIN catalog.images USING (image_id)
        WHERE e.space_id = catalog.live_space() ORDER BY 1
    """,
    "failures": "SELECT object_key, reason FROM catalog.item_failures JOIN catalog.images USING (image_id) ORDER BY 1",
    "live": LIVE,
    "spaces": "SELECT space_id, state FROM catalog.embedding_spaces ORDER BY 1",
    "texts": "SELECT query_text, encoder_version_id FROM catalog.text_queries ORDER BY 1, 2",
}


@pytest.fixture
def promoted_catalog(tagging_shop: Shop, tiny_models: TinyModels) -> Shop:
    """A searchable catalog with copies and a broken file, and a new champion of each kind."""
    connections = tagging_shop.connections
    tagging_shop.put_images(40)
    tagging_shop.put("twin_1.jpg", make_image(0))
    tagging_shop.put("unreadable.jpg", make_image(0)[:200])
    ingest(connections, IngestOptions())
    embed_text_query(connections.engine, lambda encoder: load_text_embedder(connections, encoder), WORDS)
    promote(tagging_shop, tiny_models)
    return tagging_shop


def promote(shop: Shop, tiny_models: TinyModels) -> None:
    make_champion(shop.connections, tiny_models.other_classifier, "classifier")
    make_champion(shop.connections, tiny_models.other_encoder, "encoder")


def read_state(shop: Shop) -> dict[str, list[Any]]:
    return {name: shop.query(statement) for name, statement in STATE.items()}


def undo(shop: Shop, tiny_models: TinyModels) -> None:
    """Roll back to the earlier models and delete the results of the new ones."""
    for kind in ("classifier", "encoder"):
        roll_back(shop.connections, kind)
    with shop.connections.engine.begin() as connection:
        for table, column in (
            ("image_tags", "classifier"),
            ("product_tags", "classifier"),
            ("text_queries", "encoder"),
        ):
            connection.exec_driver_sql(
                f"DELETE FROM catalog.{table} WHERE {column}_version_id = "
                f"(SELECT max({column}_version_id) FROM catalog.tagging_runs)"
            )
        connection.exec_driver_sql("DELETE FROM catalog.image_embeddings WHERE space_id <> catalog.live_space()")
    promote(shop, tiny_models)


def kill_when(shop: Shop, words: list[str], is_time: Callable[[], bool], messages: Path) -> None:
    """Start a job and kill it when the condition holds, before it ends."""
    process = start_job(*words, environment=shop.environment, messages=messages)
    wait_until(lambda: not process.is_alive() or is_time())
    assert process.is_alive(), messages.read_text()
    process.kill()
    process.join()


def count_chunks(shop: Shop, run_id: str) -> int:
    ((chunks,),) = shop.query("SELECT count(*) FROM catalog.run_chunks WHERE run_id = :run", run=run_id)
    return int(chunks)


@pytest.mark.timeout(600)
def test_a_retag_killed_in_shards_and_switch_ends_in_the_same_state(
    promoted_catalog: Shop, tiny_models: TinyModels, tmp_path: Path
) -> None:
    shop, connections, messages = promoted_catalog, promoted_catalog.connections, tmp_path / "messages"
    assert retag(connections, "undisturbed").state == "switched"
    expected = read_state(shop)
    assert len(expected["tags"]) == len(expected["vectors"]) == 41
    undo(shop, tiny_models)
    before = shop.query(LIVE)

    with watch_catalog(shop, WORDS) as watch:
        plan_retag(connections, "disturbed")
        kill_when(shop, ["retag", "--run", "disturbed"], lambda: count_chunks(shop, "disturbed") > 0, messages)
        assert count_chunks(shop, "disturbed") < count_chunks(shop, "undisturbed")
        ShardTagger(connections).tag("disturbed", plan_retag(connections, "disturbed").shards)
        with connections.engine.connect() as blocker:
            # The classifier is switched after product tags, space and counts are prepared.
            blocker.exec_driver_sql("LOCK TABLE catalog.switches IN EXCLUSIVE MODE")
            words = ["complete-retag", "--run", "disturbed"]
            kill_when(shop, words, lambda: count_waiting(shop, "catalog.switches") > 0, messages)
        assert shop.query(LIVE) == before
        assert complete_retag(connections, "disturbed").state == "switched"
    watch.assert_whole_and_unmixed()
    assert read_state(shop) == expected
    assert shop.query("SELECT state FROM catalog.tagging_runs WHERE run_id = 'disturbed'") == [("succeeded",)]


@pytest.mark.timeout(600)
def test_a_killed_top_up_is_resumed(promoted_catalog: Shop, tmp_path: Path) -> None:
    shop, connections = promoted_catalog, promoted_catalog.connections
    ShardTagger(connections).tag("retag", plan_retag(connections, "retag").shards)
    shop.put_images(80, seed=1)
    plan_run(connections, "night", IngestOptions())
    words = ["complete-retag", "--run", "retag"]
    kill_when(shop, words, lambda: count_chunks(shop, "retag/top-up-1") > 0, tmp_path / "messages")
    assert count_chunks(shop, "retag/top-up-1") < 10
    report = complete_retag(connections, "retag")
    assert (report.state, report.top_up_rounds, report.entries) == ("switched", 1, 41 + 80)
    assert shop.query("SELECT count(*) FROM catalog.current_image_tags") == [(41 + 80,)]
    assert shop.query("SELECT DISTINCT state FROM catalog.tagging_runs WHERE purpose = 'retag'") == [("succeeded",)]


def test_codes_are_renewed_after_a_kill_that_follows_the_switch(
    promoted_catalog: Shop, tiny_models: TinyModels, tmp_path: Path
) -> None:
    shop, connections = promoted_catalog, promoted_catalog.connections
    retag(connections, "both")
    make_champion(connections, tiny_models.classifier, "classifier")
    ShardTagger(connections).tag("retag", plan_retag(connections, "retag").shards)
    with connections.engine.connect() as blocker:
        # If only the classifier changes, codes are renewed after the switch.
        blocker.exec_driver_sql("LOCK TABLE catalog.vector_codes IN EXCLUSIVE MODE")
        words = ["complete-retag", "--run", "retag"]
        kill_when(shop, words, lambda: count_waiting(shop, "catalog.vector_codes") > 0, tmp_path / "messages")
    assert shop.query("SELECT state FROM catalog.tagging_runs WHERE run_id = 'retag'") == [("succeeded",)]
    assert complete_retag(connections, "retag").state == "switched"
    shop.assert_codes_are_current()
