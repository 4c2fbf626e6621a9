"""Airflow in the process of the tests: it reads a home of its own, and writes nothing into the user's."""

import os
import warnings
from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set before the first import of Airflow, which is why the tests import it late."""
    with patch.dict(os.environ, {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}):
        with warnings.catch_warnings():
            # Its libraries complain of each other on import.
            warnings.simplefilter("ignore")
            import catalog_airflow.operators  # noqa: F401
        yield
