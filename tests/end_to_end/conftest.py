"""Start one real Airflow for all tests in this folder, on one worker, because two cores cannot run a second one."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from demo.airflow_client import AirflowClient
from fixtures.notification_receivers import run_receivers
from fixtures.stack_access import read_environment
from jobs.database.migrations import migrate
from tests.end_to_end.live_stack import POLL_SECONDS, LiveStack, StackHome
from tests.local.conftest import make_stack_folder


@pytest.fixture(scope="session")
def stack_home() -> Iterator[StackHome]:
    """Choose the folder and the ports of the stack, and stop the stack after the tests."""
    with (
        run_receivers() as receivers,
        make_stack_folder() as folder,
        patch("demo.airflow_client._POLL_SECONDS", POLL_SECONDS),
    ):
        yield StackHome.make(folder, receivers)


@pytest.fixture(scope="module")
def stack(stack_home: StackHome) -> Iterator[LiveStack]:
    """Start the stack with an empty catalog."""
    status = stack_home.start()
    assert status.airflow_url is not None
    assert status.password is not None
    migrate(read_environment(status.folder)["CATALOG_DATABASE_URL"])
    with AirflowClient(status.airflow_url, status.username, status.password) as airflow:
        stack = LiveStack(status, airflow, stack_home.receivers)
        stack.empty_catalog()
        yield stack
