"""Summarize runs, and explain how their vectors were written."""

from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels, make_image
from jobs.database.run_history import EmbeddedCounts
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.report import IndexFilling, explain_filling, report_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.retag.complete import complete_retag
from jobs.retag.retag import plan_retag, retag


def count(filling: IndexFilling | None) -> tuple[int, int]:
    assert filling is not None
    return filling.loaded_first, filling.added_singly


def test_the_first_run_is_loaded_before_the_index_and_the_next_added_to_it(tagging_shop: Shop) -> None:
    tagging_shop.put_images(8)
    tagging_shop.put("copy_1.jpg", make_image(0))
    first = ingest(tagging_shop.connections, IngestOptions())
    assert count(first.index) == (9, 0)
    assert "9 vectors were loaded" in first.index.sentence
    assert "the index was built afterwards" in first.index.sentence
    tagging_shop.put_images(3, seed=1)
    second = ingest(tagging_shop.connections, IngestOptions())
    assert count(second.index) == (0, 3)
    assert "3 vectors were added to an existing index" in second.index.sentence
    third = ingest(tagging_shop.connections, IngestOptions())
    assert third.index == IndexFilling(0, 0, "no vectors were written")
    ((kept,),) = tagging_shop.query(
        "SELECT report -> 'index' FROM catalog.tagging_runs WHERE run_id = :r", r=second.run_id
    )
    assert kept == {"loaded_first": 0, "added_singly": 3, "sentence": second.index.sentence}


def test_a_run_that_was_not_published_has_no_index_yet(tagging_shop: Shop) -> None:
    tagging_shop.put_images(4)
    connections = tagging_shop.connections
    plan = plan_run(connections, "run", IngestOptions())
    ShardTagger(connections).tag("run", plan.shards)
    report = report_run(tagging_shop.with_settings(failed_share_limit=1.0), "run")
    assert report.index.sentence == "4 vectors were loaded before the index; it is not built yet"


def test_a_retag_loads_the_new_space_before_its_index(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(6)
    ingest(connections, IngestOptions())
    make_champion(connections, tiny_models.other_classifier, "classifier")
    assert count(retag(connections).index) == (0, 0), "a new classifier writes no vectors"
    make_champion(connections, tiny_models.other_encoder, "encoder")
    report = retag(connections)
    assert count(report.index) == (6, 0)
    assert complete_retag(connections, report.run_id) == report


def test_top_ups_of_a_retag_count_too(tagging_shop: Shop, tiny_models: TinyModels) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(6)
    ingest(connections, IngestOptions())
    make_champion(connections, tiny_models.other_encoder, "encoder")
    plan = plan_retag(connections, "retag")
    tagging_shop.put_images(2, seed=1)
    ingest(connections, IngestOptions())
    ShardTagger(connections).tag("retag", plan.shards)
    report = complete_retag(connections, "retag")
    assert (report.top_up_rounds, count(report.index)) == (1, (8, 0))


def test_both_kinds_of_writes_are_explained() -> None:
    sentence = explain_filling(EmbeddedCounts(5, 2), has_index=True)
    assert "5 vectors were loaded" in sentence
    assert "2 vectors were added" in sentence
