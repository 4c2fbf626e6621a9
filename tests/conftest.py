"""An embedded Postgres for each test process, and a database of its own for each test that asks."""

from fixtures.bare_environment import keep_process_state

# isort: split

import gc
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import botocore.loaders
import pytest
from sqlalchemy import Engine, make_url
from xdist.scheduler import LoadScopeScheduling

from fixtures.postgres import create_database, execute, run_server
from fixtures.s3_server import S3Server, run_s3_server
from fixtures.shop import Shop, TinyModels, open_shop, promote_tiny_models, write_tiny_models
from fixtures.supervision import supervise
from jobs.database.engine import create_database_engine
from jobs.database.migrations import migrate
from jobs.settings import HOME

AIRFLOW_TESTS = "tests/end_to_end/"


def pytest_configure() -> None:
    """End with the tests what they started, even if they are stopped."""
    supervise()


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Give each file to one worker, and all tests that share an Airflow to one, so that fixtures are made once.

    The marks of xdist do not reach its scheduler under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return AIRFLOW_TESTS if path.startswith(AIRFLOW_TESTS) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Let xdist hand out whole files."""
    return FileScheduling(config, log)


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """No test leaves anything to the next."""
    with keep_process_state():
        yield


@pytest.fixture(scope="session", autouse=True)
def process_coverage() -> Iterator[dict[str, str]]:
    """The variables that let a process count for the coverage; without them it starts in two thirds of the time.

    What jobs do in processes of their own, they also do in that of the tests.
    """
    with patch.dict(os.environ):
        yield {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE")}


@pytest.fixture(scope="session", autouse=True)
def cached_service_models() -> Iterator[None]:
    """Read boto3's description of S3 once, and not for each client: that takes longer than most tests."""
    with patch("botocore.session.create_loader", cache(botocore.loaders.create_loader)):
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_libraries() -> None:
    """Spare the garbage collector the million objects of the libraries that earlier tests have imported."""
    gc.freeze()


@pytest.fixture
def env_file() -> Iterator[Path]:
    """The ``.env`` of the suite, which has none but that of a test."""
    path = HOME / ".env"
    yield path
    path.unlink()


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> Iterator[None]:
    """Measure for a moment how fast a candidate serves: no test depends on the figure."""
    with patch("jobs.retrain.evaluate.serving.ROUND_SECONDS", 0.02):
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of the server's own database; the server ends with the session."""
    with run_server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> str:
    """The name of a migrated database, to be cloned."""
    name = "catalog_template"
    execute(postgres_server, f"CREATE DATABASE {name}")
    migrate(make_url(postgres_server).set(database=name).render_as_string(hide_password=False))
    return name


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """A database without a schema."""
    with create_database(postgres_server, "template1") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: str, template_database: str) -> Iterator[str]:
    """A migrated database that holds no rows."""
    with create_database(postgres_server, template_database) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on `database_url`."""
    engine = create_database_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 endpoint, whose keys are in its variables and not in the environment of the tests."""
    with tempfile.TemporaryDirectory(prefix="s3-") as folder, run_s3_server(Path(folder)) as server:
        yield server


@pytest.fixture
def aws_keys(s3_server: S3Server) -> Iterator[None]:
    """Keys in the environment, for tests of what boto3 finds there by itself."""
    with patch.dict(
        os.environ, {name: value for name, value in s3_server.environment.items() if name.startswith("AWS_")}
    ):
        yield


@pytest.fixture(scope="session")
def tiny_models() -> Iterator[TinyModels]:
    """Untrained checkpoints of 32 pixels, for tests that ask how photos flow and not what is on them."""
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        yield write_tiny_models(Path(folder))


@pytest.fixture
def shop(s3_server: S3Server, database_url: str, tmp_path: Path) -> Iterator[Shop]:
    """An empty bucket and a migrated, empty database."""
    with open_shop(s3_server, database_url, tmp_path / "models") as shop:
        yield shop


@pytest.fixture(scope="module")
def lasting_shop(
    s3_server: S3Server, postgres_server: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """One shop for all tests of a module, which fill it once and read it."""
    with (
        create_database(postgres_server, template_database) as url,
        open_shop(s3_server, url, tmp_path_factory.mktemp("models")) as shop,
    ):
        yield shop


@pytest.fixture
def tagging_shop(shop: Shop, tiny_models: TinyModels) -> Shop:
    """A shop whose champions are the tiny models."""
    return promote_tiny_models(shop, tiny_models)
