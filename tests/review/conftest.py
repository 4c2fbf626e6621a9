"""The small catalog of the tests of browsing, to be reviewed."""

from tests.database.conftest import browsed_engine, catalog, connection

__all__ = ["browsed_engine", "catalog", "connection"]
