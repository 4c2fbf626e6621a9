from sqlalchemy import Engine

from fixtures.catalog_rows import promote_model
from jobs.database.promotions import find_latest_other


def test_the_version_that_was_live_last_is_found(engine: Engine) -> None:
    with engine.begin() as connection:
        first, second, third = (promote_model(connection, "classifier") for _ in range(3))
        assert find_latest_other(connection, "classifier", third) == second
        assert find_latest_other(connection, "classifier", second) == third
        assert find_latest_other(connection, "classifier", first) == third
        assert find_latest_other(connection, "encoder", first) is None
