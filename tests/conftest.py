"""Provide an embedded Postgres for each test process and a database for each test that needs one."""

from fixtures.bare_environment import keep_process_state

# isort: split

import faulthandler
import gc
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.loaders
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from sqlalchemy import Connection, Engine, make_url
from xdist.scheduler import LoadScopeScheduling

from fixtures.postgres import create_database, execute, run_server
from fixtures.s3_server import S3Server, run_s3_server
from fixtures.shop import Shop, TinyModels, open_shop, promote_tiny_models, write_tiny_models
from fixtures.supervision import supervise
from jobs.database.engine import create_database_engine
from jobs.database.migrations import migrate
from jobs.settings import HOME

AIRFLOW_TESTS = "tests/end_to_end/"
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["jobs.images.thumbnails", "jobs.images.perceptual_hash"])
"""The fork server is the same as that of `fixtures.job_processes`, which adds libraries when it is imported."""


def pytest_testnodedown(node: Any, error: object) -> None:
    """Print the exit status of a test process that has died, such as -9 for SIGKILL: xdist does not tell."""
    if error:
        status = node.gateway._io.popen.wait(timeout=30)
        print(f"\n{node.gateway.id} ended with exit status {status}", file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True, scope="module")
def crashes_are_reported(pytestconfig: pytest.Config) -> Iterator[None]:
    """Let a crash write to the terminal even after a library has redirected such reports, as torch does."""
    yield
    if fault_handler_stderr_fd_key in pytestconfig.stash:
        faulthandler.enable(file=pytestconfig.stash[fault_handler_stderr_fd_key])


def pytest_configure() -> None:
    """Stop everything that the tests start, even if they are interrupted."""
    supervise()


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Run each file on one worker, and all tests that share an Airflow on one, so fixtures are created once.

    The marks of xdist do not reach its scheduler with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return AIRFLOW_TESTS if path.startswith(AIRFLOW_TESTS) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Make xdist distribute whole files."""
    return FileScheduling(config, log)


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Reset the state of the process after each test."""
    with keep_process_state():
        yield


@pytest.fixture(scope="session", autouse=True)
def process_coverage() -> Iterator[dict[str, str]]:
    """Return the variables that make a child process measure coverage, and remove them from the environment.

    Without them, processes start in two thirds of the time, and the same code also runs in the process of the tests.
    """
    with patch.dict(os.environ):
        yield {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE")}


@pytest.fixture(scope="session", autouse=True)
def untraced_conversions() -> Iterator[None]:
    """Do not trace the conversion and the quantization of models for coverage, because that doubles their time.

    Almost all of their code is in Torch, OpenVINO and NNCF; of ours, three lines are lost.
    """
    with ExitStack() as patches:
        for module, name in (("torch.export", "export"), ("openvino", "convert_model"), ("nncf", "quantize")):
            if library := sys.modules.get(module):
                patches.enter_context(patch.object(library, name, run_untraced(getattr(library, name))))
        yield


def run_untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs without the trace function of its thread."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(trace)

    return call


@pytest.fixture(scope="session", autouse=True)
def cached_service_models() -> Iterator[None]:
    """Read boto3's description of S3 once instead of for each client, which takes longer than most tests."""
    with patch("botocore.session.create_loader", cache(botocore.loaders.create_loader)):
        yield


@pytest.fixture(scope="module", autouse=True)
def forked_decoders() -> Iterator[None]:
    """Fork decoding processes from one that has loaded their libraries. A new process takes half a second of CPU time.

    The tests of these processes override this fixture to start them as a job does.
    """
    with patch("jobs.images.decode_pool.multiprocessing", SimpleNamespace(get_context=lambda _: FORK_SERVER)):
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_libraries() -> None:
    """Exclude the million objects of imported libraries from garbage collection."""
    gc.freeze()


@pytest.fixture
def env_file() -> Iterator[Path]:
    """Return the path of ``.env`` in the suite's home folder, and delete the file afterwards."""
    path = HOME / ".env"
    yield path
    path.unlink()


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> Iterator[None]:
    """Shorten the measurement of serving speed; no test depends on the result."""
    with patch("jobs.retrain.evaluate.serving.ROUND_SECONDS", 0.02):
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a server and return the URL of its own database."""
    with run_server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> str:
    """Create a migrated database to clone, and return its name."""
    name = "catalog_template"
    execute(postgres_server, f"CREATE DATABASE {name}")
    migrate(make_url(postgres_server).set(database=name).render_as_string(hide_password=False))
    return name


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """Create a database without a schema."""
    with create_database(postgres_server, "template1") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: str, template_database: str) -> Iterator[str]:
    """Create a migrated database without rows."""
    with create_database(postgres_server, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def empty_catalog(postgres_server: str, template_database: str) -> Iterator[Engine]:
    """A catalog shared by all tests of a process, which leave nothing in it."""
    with create_database(postgres_server, template_database) as url:
        engine = create_database_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def connection(empty_catalog: Engine) -> Iterator[Connection]:
    """A transaction on an empty catalog, rolled back."""
    with empty_catalog.connect() as connection:
        yield connection


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Create an engine for `database_url`."""
    engine = create_database_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Start a real S3 endpoint. Its keys are not in the environment of the tests."""
    with tempfile.TemporaryDirectory(prefix="s3-") as folder, run_s3_server(Path(folder)) as server:
        yield server


@pytest.fixture
def aws_keys(s3_server: S3Server) -> Iterator[None]:
    """Put the endpoint's keys into the environment, where boto3 finds them."""
    with patch.dict(
        os.environ, {name: value for name, value in s3_server.environment.items() if name.startswith("AWS_")}
    ):
        yield


@pytest.fixture(scope="session")
def tiny_models() -> Iterator[TinyModels]:
    """Write untrained checkpoints of 32 pixels, for tests that do not depend on predictions."""
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        yield write_tiny_models(Path(folder))


@pytest.fixture
def shop(s3_server: S3Server, database_url: str, tmp_path: Path) -> Iterator[Shop]:
    """Open a shop with an empty bucket and a migrated, empty database."""
    with open_shop(s3_server, database_url, tmp_path / "models") as shop:
        yield shop


@pytest.fixture(scope="module")
def lasting_shop(
    s3_server: S3Server, postgres_server: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Open a shop for all tests of a module, which fill it once and read it."""
    with (
        create_database(postgres_server, template_database) as url,
        open_shop(s3_server, url, tmp_path_factory.mktemp("models")) as shop,
    ):
        yield shop


@pytest.fixture
def tagging_shop(shop: Shop, tiny_models: TinyModels) -> Shop:
    """Promote the tiny models in a shop."""
    return promote_tiny_models(shop, tiny_models)
