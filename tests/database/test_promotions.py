import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import open_live_space, promote_model, register_model, start_run
from jobs.database.promotions import find_latest_other, list_stuck_retags


def test_the_version_that_was_live_last_is_found(engine: Engine) -> None:
    with engine.begin() as connection:
        first, second, third = (promote_model(connection, "classifier") for _ in range(3))
        assert find_latest_other(connection, "classifier", third) == second
        assert find_latest_other(connection, "classifier", second) == third
        assert find_latest_other(connection, "classifier", first) == third
        assert find_latest_other(connection, "encoder", first) is None


def promote_earlier(connection: Connection, hours: int) -> int:
    """Promote a second classifier some hours ago, and return its id."""
    version = register_model(connection, "classifier")
    connection.execute(
        text("""
            INSERT INTO catalog.promotions (kind, model_version_id, promoted_by, reason, promoted_at)
            VALUES ('classifier', :version, 'tester', 'because', now() - make_interval(hours => :hours))
        """),
        {"version": version, "hours": hours},
    )
    return version


def test_a_champion_that_is_not_live_after_a_day_is_stuck(connection: Connection) -> None:
    live = promote_model(connection, "classifier")
    champion = promote_earlier(connection, hours=25)
    (sentence,) = list_stuck_retags(connection)
    assert sentence.startswith(f"classifier {champion} was promoted on 20")
    assert f"but classifier {live} is still live" in sentence


def test_a_live_champion_and_a_recent_one_are_not_stuck(connection: Connection) -> None:
    promote_model(connection, "classifier")
    assert list_stuck_retags(connection) == ()
    promote_earlier(connection, hours=23)
    assert list_stuck_retags(connection) == ()


@pytest.mark.parametrize(
    ("purpose", "hours", "is_stuck"), [("retag", 23, False), ("retag", 25, True), ("ingest", 1, True)]
)
def test_a_retag_that_committed_a_chunk_in_the_last_day_is_not_stuck(
    connection: Connection, purpose: str, hours: int, is_stuck: bool
) -> None:
    promote_model(connection, "classifier")
    space = open_live_space(connection, 3)
    start_run(connection, promote_earlier(connection, hours=40), space)
    connection.execute(
        text("""
            UPDATE catalog.tagging_runs SET purpose = :purpose, started_at = now() - interval '30 hours';
            INSERT INTO catalog.run_chunks (run_id, shard, chunk, entries, tagged, reused, failed, failure_reasons,
                                            read_seconds, decode_seconds, predict_seconds, write_seconds, wall_seconds,
                                            committed_at)
            VALUES ('run', 0, 0, 1, 1, 0, 0, '{}', 0, 0, 0, 0, 0, now() - make_interval(hours => :hours))
        """),
        {"purpose": purpose, "hours": hours},
    )
    assert bool(list_stuck_retags(connection)) == is_stuck
