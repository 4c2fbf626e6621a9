from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import TypeVar

import pytest
from sqlalchemy import Connection, Engine, exc, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, open_live_space, promote_model, start_run
from jobs.database.item_failures import ItemFailure, record_failures
from jobs.database.model_coverage import count_unprocessed
from jobs.database.spaces import (
    EmbeddingSpace,
    create_space_index,
    drop_space,
    find_live_space,
    find_space,
    make_space_live,
    open_space,
    read_live_space,
)
from jobs.errors import PermanentError

Result = TypeVar("Result")


def read_states(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT space_id, state FROM catalog.embedding_spaces"))
        return {row.space_id: row.state for row in rows}


def open_new_space(engine: Engine, dimensions: int = 3) -> int:
    with engine.begin() as connection:
        return open_space(connection, promote_model(connection, "encoder", dimensions), dimensions)


def run_together(engine: Engine, acts: Sequence[Callable[[Connection], Result]]) -> list[Result]:
    """Do all acts in transactions that begin at the same moment."""
    barrier = Barrier(len(acts))

    def run(act: Callable[[Connection], Result]) -> Result:
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            barrier.wait()
            return act(connection)

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def publish(engine: Engine, space_id: int) -> None:
    with engine.begin() as connection:
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)


def test_opening_twice_gives_the_same_space(engine: Engine) -> None:
    with engine.begin() as connection:
        encoder = promote_model(connection, "encoder", 3)
        first = open_space(connection, encoder, 3)
        assert open_space(connection, encoder, 3) == first
        assert find_space(connection, encoder) == first
    assert read_states(engine) == {first: "building"}


def test_opening_at_the_same_time_gives_the_same_space(engine: Engine) -> None:
    with engine.begin() as connection:
        encoder = promote_model(connection, "encoder", 3)

    assert len(set(run_together(engine, [lambda connection: open_space(connection, encoder, 3)] * 5))) == 1


def test_other_dimensions_are_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        encoder = promote_model(connection, "encoder", 3)
        open_space(connection, encoder, 3)
        with pytest.raises(PermanentError, match="3 dimensions, not 4"):
            open_space(connection, encoder, 4)


def test_a_space_takes_only_vectors_of_its_length(engine: Engine) -> None:
    with engine.begin() as connection:
        space_id = open_live_space(connection, 3)
        classifier = promote_model(connection, "classifier")
    with pytest.raises(exc.DBAPIError, match="embedding_check"), engine.begin() as connection:
        add_images(connection, [NewImage("p", vector=[1, 0])], space_id, classifier)


def test_a_switch_retires_the_space_before(engine: Engine) -> None:
    first, second = open_new_space(engine), open_new_space(engine)
    publish(engine, first)
    publish(engine, second)
    assert read_states(engine) == {first: "retired", second: "live"}
    publish(engine, first)
    assert read_states(engine) == {first: "live", second: "retired"}
    with engine.connect() as connection:
        assert find_live_space(connection) == first


def test_switches_at_the_same_time_leave_one_live(engine: Engine) -> None:
    spaces = [open_new_space(engine) for _ in range(4)]
    with engine.begin() as connection:
        for space_id in spaces:
            create_space_index(connection, space_id)
    run_together(engine, [partial(make_space_live, space_id=space_id) for space_id in spaces])
    assert sorted(read_states(engine).values()) == ["live", "retired", "retired", "retired"]


def test_another_space_goes_live_while_one_is_indexed(engine: Engine) -> None:
    """A build takes minutes at a million rows, and going back must not wait for it."""
    ready, building = open_new_space(engine), open_new_space(engine)
    with engine.begin() as connection:
        create_space_index(connection, ready)
    with engine.begin() as builder:
        create_space_index(builder, building)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            make_space_live(connection, ready)
    assert read_states(engine) == {ready: "live", building: "building"}


def test_two_builds_of_one_space_make_one_index(engine: Engine) -> None:
    space_id = open_new_space(engine)
    run_together(engine, [partial(create_space_index, space_id=space_id) for _ in range(4)])
    publish(engine, space_id)
    assert read_states(engine) == {space_id: "live"}


def test_a_space_without_index_does_not_go_live(engine: Engine) -> None:
    space_id = open_new_space(engine)
    with pytest.raises(PermanentError, match="no index"), engine.begin() as connection:
        make_space_live(connection, space_id)
    with pytest.raises(PermanentError, match="no embedding space is live"), engine.connect() as connection:
        read_live_space(connection)


def test_the_index_is_built_once_and_memory_is_set_for_the_build_alone(engine: Engine) -> None:
    space_id = open_new_space(engine)
    with engine.begin() as connection:
        before = connection.scalar(text("SHOW maintenance_work_mem"))
        connection.execute(text("SET maintenance_work_mem = '1MB'"))
        create_space_index(connection, space_id)
        assert connection.scalar(text("SHOW maintenance_work_mem")) == "64MB"
    with engine.begin() as connection:
        create_space_index(connection, space_id)
        assert connection.scalar(text("SHOW maintenance_work_mem")) in (before, "1MB")
        options = connection.scalar(
            text("SELECT reloptions FROM pg_class WHERE relname = :index"),
            {"index": EmbeddingSpace(space_id, 1, 3, "building").index},
        )
    assert options == ["m=16", "ef_construction=64"]


def test_dropping_deletes_the_vectors_and_keeps_the_row(engine: Engine) -> None:
    space_id, live = open_new_space(engine), open_new_space(engine)
    publish(engine, space_id)
    with pytest.raises(PermanentError, match="is live"), engine.begin() as connection:
        drop_space(connection, space_id)
    publish(engine, live)
    for _ in range(2):
        with engine.begin() as connection:
            drop_space(connection, space_id)
            assert (
                connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"catalog.image_embeddings_{space_id}"})
                is None
            )
    assert read_states(engine)[space_id] == "retired"
    with pytest.raises(PermanentError, match="no index"), engine.begin() as connection:
        make_space_live(connection, space_id)


def test_a_dropped_space_can_be_built_again(engine: Engine) -> None:
    with engine.begin() as connection:
        encoder = promote_model(connection, "encoder", 3)
        space_id = open_space(connection, encoder, 3)
        drop_space(connection, space_id)
        assert open_space(connection, encoder, 3) == space_id
    assert read_states(engine) == {space_id: "building"}


def test_unknown_spaces_are_refused(engine: Engine) -> None:
    for act in (create_space_index, make_space_live, drop_space):
        with pytest.raises(PermanentError, match="no embedding space 99"), engine.begin() as connection:
            act(connection, 99)


def test_missing_vectors_are_those_of_images_in_the_bucket_that_did_not_fail(engine: Engine) -> None:
    with engine.begin() as connection:
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
        images = [NewImage("p", vector=[1, 0, 0], content=b"x")] + [NewImage("p") for _ in range(4)]
        _, deleted, failed, *_ = add_images(connection, images, space_id, classifier)
        delete_images(connection, [deleted])
        start_run(connection, classifier, space_id)
        record_failures(connection, "run", [ItemFailure(failed, "etag", "decode", "truncated", "no end")])
        assert count_unprocessed(connection, classifier=None, space=space_id) == 2
