"""Share the small catalog of the tests of the database."""

from tests.database.conftest import browsed_engine, catalog, connection

__all__ = ["browsed_engine", "catalog", "connection"]
