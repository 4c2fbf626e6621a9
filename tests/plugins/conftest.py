"""Airflow in the test process, with its own home folder."""

import os
import warnings
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest


class Context(dict[str, Any]):
    """The part of Airflow's context that operators use."""

    def __init__(self) -> None:
        super().__init__(ti=self)
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set the home folder before the first import of Airflow, which tests therefore import inside functions."""
    with patch.dict(os.environ, {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}):
        with warnings.catch_warnings():
            # Its libraries warn about each other on import.
            warnings.simplefilter("ignore")
            import catalog_airflow.operators  # noqa: F401
        yield
