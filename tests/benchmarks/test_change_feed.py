"""A replica equals its source after kills of both ends, and the scenario notices a replica that does not."""

from sqlalchemy import Engine, text

from benchmarks.scenarios.change_feed.replica import Replica
from benchmarks.scenarios.change_feed.run import Plan, fill, run_feed
from tests.test_cli import make_environment


def test_a_replica_equals_its_source_after_kills(engine: Engine, database_url: str) -> None:
    environment = make_environment(CATALOG_DATABASE_URL=database_url)
    outcome = run_feed(engine, environment, Plan(kills=3, quiet_seconds=1, max_pause_seconds=1, products=30))
    assert outcome.differences == 0, outcome.examples
    assert outcome.kills == 3
    assert outcome.lines > 0
    assert outcome.quiet_lags or outcome.killed_lags


def test_a_difference_is_noticed(engine: Engine) -> None:
    with engine.begin() as connection:
        fill(connection, products=3)
    replica = Replica(engine)
    replica.load()
    with engine.begin() as connection:
        assert replica.find_differences(connection) == {}
        connection.execute(text("UPDATE catalog.product_tags SET category = 'hat' WHERE product_id = 'p1'"))
        connection.execute(text("UPDATE catalog.images SET deleted_at = now() WHERE product_id = 'p2'"))
        assert replica.find_differences(connection).keys() == {"p1", "p2"}
