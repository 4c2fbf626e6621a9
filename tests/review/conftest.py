"""Share the small catalog of the tests of the database."""

from tests.database.conftest import catalog

__all__ = ["catalog"]
