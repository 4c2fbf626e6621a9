import json

from sqlalchemy import Connection, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    delete_images,
    label_image,
    register_model,
    start_run,
    tag_products,
)
from jobs.database.drift_references import DriftReference, upsert_drift_reference
from jobs.database.promotions import Switch, insert_switch
from jobs.database.reviews import Answer, ReviewItem, ReviewReason
from jobs.review.answers import record_answers
from jobs.review.queue import find_review_queue, read_backlog, read_review_queue
from jobs.settings import RunSettings
from tests.database.conftest import SmallCatalog

DRIFT = RunSettings()


def read_queue(connection: Connection, reason: ReviewReason | None, size: int) -> tuple[ReviewItem, ...]:
    return read_review_queue(connection, find_review_queue(connection, DRIFT), reason, size)


def list_queue(connection: Connection, catalog: SmallCatalog, reason: ReviewReason | None, size: int = 50) -> list[str]:
    return [catalog.name(item.image_id) for item in read_queue(connection, reason, size)]


def test_the_least_confident_come_first(connection: Connection, catalog: SmallCatalog) -> None:
    assert list_queue(connection, catalog, "low_confidence") == ["blue", "boot", "sandal"]
    assert list_queue(connection, catalog, "low_confidence", size=1) == ["blue"]
    delete_images(connection, [catalog.image_ids["boot"]])
    label_image(connection, catalog.image_ids["blue"], "hat")
    assert list_queue(connection, catalog, "low_confidence") == ["sandal"]


def test_a_image_that_contradicts_its_product_is_shown_until_one_has_a_label(
    connection: Connection, catalog: SmallCatalog
) -> None:
    [item] = read_queue(connection, "images_disagree", 50)
    assert catalog.name(item.image_id) == "blue"
    assert (item.product_id, item.category, item.label) == ("P1", "hat", None)
    assert item.confidence > 0.39
    label_image(connection, catalog.image_ids["red"], "dress")
    assert list_queue(connection, catalog, "images_disagree") == []


def test_a_label_that_a_confident_classifier_contradicts_is_shown_once(
    connection: Connection, catalog: SmallCatalog
) -> None:
    assert list_queue(connection, catalog, "label_error") == []
    image_id = catalog.image_ids["labeled"]
    connection.execute(
        text("UPDATE catalog.image_tags SET confidence = 0.9 WHERE image_id = :image"), {"image": image_id}
    )
    [item] = read_queue(connection, "label_error", 50)
    assert (catalog.name(item.image_id), item.category, item.label) == ("labeled", "hat", "dress")
    record_answers(connection, [Answer(image_id, "label_error", "dress")], "ann")
    assert list_queue(connection, catalog, "label_error") == []


def test_a_label_of_a_category_that_the_classifier_does_not_know_is_no_error(
    connection: Connection, catalog: SmallCatalog
) -> None:
    for known, category in (("hat", "not clothing"), ("red", "kimono")):
        label_image(connection, catalog.image_ids[known], category)
    assert list_queue(connection, catalog, "label_error") == []


def test_the_audit_draws_at_random_and_the_next_classifier_draws_others(
    connection: Connection, catalog: SmallCatalog
) -> None:
    more = [NewImage(f"Q{number}", "dress", None, 0.99) for number in range(300)]
    image_ids = add_images(connection, more, catalog.space_id, catalog.classifier)
    first = [item.image_id for item in read_queue(connection, "audit", 40)]
    assert first == [item.image_id for item in read_queue(connection, "audit", 40)]
    assert len(set(first)) == 40
    assert first != sorted(first)
    # From all of the catalog, as chance would have it: 40 of some 305, in three thirds.
    thirds = [sum(1 for image_id in first if image_ids[100 * n] <= image_id < image_ids[100 * n] + 100) for n in (0, 2)]
    assert min(thirds) > 3
    everything = read_queue(connection, "audit", 1000)
    assert len({item.image_id for item in everything}) == 305
    # Answered images go, and the order of the others stays.
    record_answers(connection, [Answer(first[0], "audit", "hat"), Answer(first[1], "audit", "hat")], "ann")
    assert [item.image_id for item in read_queue(connection, "audit", 38)] == first[2:]
    successor = register_model(connection, "classifier")
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags
            SELECT image_id, :successor, build_id, category, confidence, top_3, probabilities, content_hash
            FROM catalog.image_tags
        """),
        {"successor": successor},
    )
    insert_switch(connection, Switch("classifier", successor, None))
    others = [item.image_id for item in read_queue(connection, "audit", 38)]
    assert others != first[2:]


def test_images_of_drifted_categories_are_shown_latest_first(connection: Connection, catalog: SmallCatalog) -> None:
    assert list_queue(connection, catalog, "drifted_category") == []
    reference = DriftReference({"dress": 100, "hat": 100, "shoes": 100}, [0] * 9 + [300])
    upsert_drift_reference(connection, catalog.classifier, reference, "catalog")
    start_run(connection, catalog.classifier, catalog.space_id, entries=300)
    connection.execute(
        text("""
            INSERT INTO catalog.run_chunks (run_id, shard, chunk, entries, tagged, reused, failed, failure_reasons,
                read_seconds, decode_seconds, predict_seconds, write_seconds, wall_seconds, category_counts,
                confidence_counts)
            VALUES ('run', 0, 0, 300, 300, 0, 0, '{}', 1, 1, 1, 1, 1, :categories, :confidences)
        """),
        {
            "categories": json.dumps({"dress": 100, "hat": 30, "shoes": 170}),
            "confidences": json.dumps([0] * 9 + [300]),
        },
    )
    # A run that goes on is not judged yet.
    assert list_queue(connection, catalog, "drifted_category") == []
    connection.execute(text("UPDATE catalog.tagging_runs SET finished_at = now(), state = 'succeeded'"))
    assert list_queue(connection, catalog, "drifted_category") == ["sandal", "boot", "hat", "blue"]


def test_all_reasons_take_turns_and_no_image_comes_twice(connection: Connection, catalog: SmallCatalog) -> None:
    queue = read_queue(connection, None, 50)
    assert len({item.image_id for item in queue}) == len(queue) == 5
    # It may be there for another reason, too.
    first_of_audit = find_review_queue(connection, DRIFT).by_reason["audit"][0]
    assert first_of_audit in {item.image_id for item in queue[:3]}
    assert queue[0].reason == "low_confidence"


def test_the_backlog_counts_the_queue(connection: Connection, catalog: SmallCatalog) -> None:
    counts = {
        backlog.reason: backlog.images for backlog in read_backlog(connection, find_review_queue(connection, DRIFT))
    }
    assert counts == {"low_confidence": 3, "images_disagree": 1, "audit": 5, "label_error": 0, "drifted_category": 0}


def test_without_a_live_classifier_the_queue_is_empty(connection: Connection) -> None:
    assert read_queue(connection, None, 10) == ()
    assert read_backlog(connection, find_review_queue(connection, DRIFT)) == ()


def test_the_top_3_of_a_image_are_shown(connection: Connection, catalog: SmallCatalog) -> None:
    top_3 = [{"category": "hat", "confidence": 0.4}, {"category": "dress", "confidence": 0.35}]
    connection.execute(
        text("UPDATE catalog.image_tags SET top_3 = :top WHERE image_id = :image"),
        {"top": json.dumps(top_3), "image": catalog.image_ids["blue"]},
    )
    tag_products(connection, catalog.classifier, {"PX4": "hat"})
    [item] = read_queue(connection, "low_confidence", 1)
    assert [(guess["category"], guess["confidence"]) for guess in item.top_3] == [("hat", 0.4), ("dress", 0.35)]
