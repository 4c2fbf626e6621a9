import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import label_image, promote_model
from jobs.database.reviews import Answer
from jobs.errors import RetryableError
from jobs.review import shared_queue
from jobs.review.answers import record_answers, undo_answer
from jobs.review.queue import count_waiting, read_backlog, read_review_queue
from jobs.review.shared_queue import SharedQueue
from jobs.settings import RunSettings
from tests.database.conftest import SmallCatalog

DRIFT = RunSettings()


def share_queue(connection: Connection, may_search: threading.Event | None = None) -> SharedQueue:
    """Return a queue whose searches in the background wait for ``may_search`` and use the connection of the test."""

    @contextmanager
    def open_connection() -> Iterator[Connection]:
        assert may_search is not None
        assert may_search.wait(30)
        yield connection

    return SharedQueue(open_connection)


def join_search() -> None:
    """Wait for searches in the background."""
    for thread in threading.enumerate():
        if thread.name == shared_queue.THREAD_NAME:
            thread.join()


def list_names(connection: Connection, catalog: SmallCatalog, shared: SharedQueue) -> list[str]:
    queue = shared.get(connection, DRIFT)
    return [catalog.name(item.image_id) for item in read_review_queue(connection, queue, "low_confidence", 50)]


def test_answers_and_undone_answers_count_at_once(connection: Connection, catalog: SmallCatalog) -> None:
    shared, boot = share_queue(connection), catalog.image_ids["boot"]
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
    shared = share_queue(connection)
    assert len(list_names(connection, catalog, shared)) == 3
    record_answers(connection, [Answer(catalog.image_ids["boot"], "audit", "hat")], "ann")
    label_image(connection, catalog.image_ids["blue"], "hat")
    assert list_names(connection, catalog, shared) == ["sandal"]
    # The count follows when the queue is found again.
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] != [catalog.image_ids["sandal"]]
    shared.forget()
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] == [catalog.image_ids["sandal"]]


def test_the_queue_is_found_again_for_another_classifier_and_after_minutes(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = share_queue(connection)
    first = shared.get(connection, DRIFT).by_reason
    label_image(connection, catalog.image_ids["blue"], "hat")
    assert shared.get(connection, DRIFT).by_reason is first
    monkeypatch.setattr(shared_queue, "MAX_SECONDS", 0.0)
    assert shared.get(connection, DRIFT).by_reason != first
    monkeypatch.undo()
    promote_model(connection, "classifier")
    assert shared.get(connection, DRIFT).by_reason["low_confidence"] == []


def test_no_request_waits_while_an_old_queue_is_found_again(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_search = threading.Event()
    shared, blue, boot = share_queue(connection, may_search), catalog.image_ids["blue"], catalog.image_ids["boot"]
    first = shared.get(connection, DRIFT).by_reason
    record_answers(connection, [Answer(blue, "audit", "hat")], "ann")
    shared.add_answers([blue])
    monkeypatch.setattr(shared_queue, "FRESH_SECONDS", 0.0)
    assert shared.get(connection, DRIFT).by_reason is first
    monkeypatch.undo()
    # An answer during the search, which may not see it.
    shared.add_answers([boot])
    may_search.set()
    join_search()
    found = shared.get(connection, DRIFT)
    assert blue in first["low_confidence"]
    assert found.by_reason["low_confidence"] == [boot, catalog.image_ids["sandal"]]
    assert found.answered == {boot}


def test_an_undone_answer_returns_even_if_the_queue_was_found_after_it(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_search = threading.Event()
    shared, boot = share_queue(connection, may_search), catalog.image_ids["boot"]
    assert list_names(connection, catalog, shared) == ["blue", "boot", "sandal"]
    [review_id] = record_answers(connection, [Answer(boot, "low_confidence", "hat")], "ann")
    shared.add_answers([boot])
    monkeypatch.setattr(shared_queue, "FRESH_SECONDS", 0.0)
    shared.get(connection, DRIFT)
    monkeypatch.undo()
    may_search.set()
    join_search()
    assert boot not in shared.get(connection, DRIFT).by_reason["low_confidence"]
    undo_answer(connection, review_id, "ann")
    shared.remove_answers([boot])
    assert list_names(connection, catalog, shared) == ["blue", "boot", "sandal"]


def test_a_search_that_began_before_an_undo_is_dropped(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_search = threading.Event()
    shared, boot = share_queue(connection, may_search), catalog.image_ids["boot"]
    shared.get(connection, DRIFT)
    # The search sees the answer, and the undo comes before its result.
    record_answers(connection, [Answer(boot, "low_confidence", "hat")], "ann")
    shared.add_answers([boot])
    monkeypatch.setattr(shared_queue, "FRESH_SECONDS", 0.0)
    shared.get(connection, DRIFT)
    monkeypatch.undo()
    shared.remove_answers([boot])
    may_search.set()
    join_search()
    queue = shared.get(connection, DRIFT)
    assert boot in queue.list_waiting("low_confidence")


def test_a_failed_search_keeps_the_queue_and_is_tried_again(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    @contextmanager
    def open_connection() -> Iterator[Connection]:
        attempts.append(1)
        if len(attempts) == 1:
            raise RetryableError("cannot reach the database")
        yield connection

    shared = SharedQueue(open_connection)
    first = shared.get(connection, DRIFT).by_reason
    monkeypatch.setattr(shared_queue, "FRESH_SECONDS", 0.0)
    assert shared.get(connection, DRIFT).by_reason is first
    join_search()
    assert "cannot reach the database" in caplog.text
    shared.get(connection, DRIFT)
    join_search()
    monkeypatch.undo()
    assert shared.get(connection, DRIFT).by_reason is not first
    assert len(attempts) == 2


def test_a_label_that_another_server_confirmed_is_not_shown(connection: Connection, catalog: SmallCatalog) -> None:
    shared, image_id = share_queue(connection), catalog.image_ids["labeled"]
    connection.execute(text("UPDATE catalog.image_tags SET confidence = 0.9 WHERE image_id = :id"), {"id": image_id})
    queue = shared.get(connection, DRIFT)
    assert [item.image_id for item in read_review_queue(connection, queue, "label_error", 50)] == [image_id]
    record_answers(connection, [Answer(image_id, "label_error", "dress")], "ann")
    assert read_review_queue(connection, queue, "label_error", 50) == ()
