import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import label_image, promote_model
from jobs.database.reviews import Answer
from jobs.review import shared_queue
from jobs.review.answers import record_answers
from jobs.review.queue import count_waiting, read_backlog, read_review_queue
from jobs.review.shared_queue import SharedQueue
from jobs.settings import RunSettings
from tests.database.conftest import SmallCatalog

DRIFT = RunSettings()


def list_names(connection: Connection, catalog: SmallCatalog, shared: SharedQueue) -> list[str]:
    queue = shared.get(connection, DRIFT)
    return [catalog.name(item.image_id) for item in read_review_queue(connection, queue, "low_confidence", 50)]


def test_answers_and_undone_answers_count_at_once(connection: Connection, catalog: SmallCatalog) -> None:
    shared, boot = SharedQueue(), catalog.image_ids["boot"]
    assert list_names(connection, catalog, shared) == ["blue", "boot", "sandal"]
    shared.add_answers([boot])
    queue = shared.get(connection, DRIFT)
    backlog = read_backlog(connection, queue)
    assert backlog[0].images == 2
    assert count_waiting(queue, backlog, "low_confidence") == 2
    # Each image counts once, although it waits for several reasons.
    assert count_waiting(queue, backlog, None) == 4
    assert list_names(connection, catalog, shared) == ["blue", "sandal"]
    shared.remove_answers([boot])
    assert list_names(connection, catalog, shared) == ["blue", "boot", "sandal"]


def test_images_that_other_servers_answered_are_not_shown(connection: Connection, catalog: SmallCatalog) -> None:
    shared = SharedQueue()
    assert len(list_names(connection, catalog, shared)) == 3
    record_answers(connection, [Answer(catalog.image_ids["boot"], "audit", "hat")], "ann")
    label_image(connection, catalog.image_ids["blue"], "hat")
    assert list_names(connection, catalog, shared) == ["sandal"]
    # The count follows when the queue is found again.
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] != [catalog.image_ids["sandal"]]
    shared.forget()
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] == [catalog.image_ids["sandal"]]


def test_the_queue_is_found_again_later_and_for_another_classifier(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedQueue()
    first = shared.get(connection, DRIFT).by_reason
    label_image(connection, catalog.image_ids["blue"], "hat")
    assert shared.get(connection, DRIFT).by_reason is first
    monkeypatch.setattr(shared_queue, "FRESH_SECONDS", 0.0)
    assert shared.get(connection, DRIFT).by_reason != first
    monkeypatch.undo()
    promote_model(connection, "classifier")
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] == []


def test_a_label_that_another_server_confirmed_is_not_shown(connection: Connection, catalog: SmallCatalog) -> None:
    shared, image_id = SharedQueue(), catalog.image_ids["labeled"]
    connection.execute(text("UPDATE catalog.image_tags SET confidence = 0.9 WHERE image_id = :id"), {"id": image_id})
    queue = shared.get(connection, DRIFT)
    assert [item.image_id for item in read_review_queue(connection, queue, "label_error", 50)] == [image_id]
    record_answers(connection, [Answer(image_id, "label_error", "dress")], "ann")
    assert read_review_queue(connection, queue, "label_error", 50) == ()
