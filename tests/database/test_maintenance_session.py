"""Sessions for maintenance use one core and much memory, and leave nothing to the next session."""

import pytest
from sqlalchemy import Connection, Engine, text

from jobs.database.maintenance_session import open_maintenance
from jobs.errors import RetryableError


def read_limits(connection: Connection) -> tuple[int, str]:
    statement = text("""
        SELECT current_setting('max_parallel_maintenance_workers')::int, current_setting('maintenance_work_mem')
    """)
    workers, memory = connection.execute(statement).one()
    return workers, memory


def test_one_session_at_a_time_has_the_memory(engine: Engine) -> None:
    with engine.connect() as connection:
        before = read_limits(connection)
    with open_maintenance(engine) as connection:
        assert read_limits(connection) == (0, "6GB")
        with pytest.raises(RetryableError, match="is running"), open_maintenance(engine):
            pass
    with engine.connect() as connection:
        assert read_limits(connection) == before


def test_a_larger_memory_of_the_server_is_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        database = connection.scalar(text("SELECT quote_ident(current_database())"))
        connection.exec_driver_sql(f"ALTER DATABASE {database} SET maintenance_work_mem = '60GB'")
    engine.dispose()
    with open_maintenance(engine) as connection:
        assert read_limits(connection) == (0, "60GB")
