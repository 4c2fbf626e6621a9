"""Start the servers that sandboxes share, and create and drop sandboxes."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.scenarios.chaos.kill_scenarios import Sandbox
from fixtures.postgres import create_database, execute, run_server
from fixtures.s3_server import S3Server, run_s3_server
from fixtures.shop import TinyModels, open_shop, write_tiny_models
from jobs.database.migrations import migrate

TEMPLATE = "catalog_template"


@dataclass(frozen=True)
class Servers:
    """A Postgres with a migrated template database, an S3 endpoint, and checkpoints."""

    postgres_url: str
    s3: S3Server
    models: TinyModels
    folder: Path

    @contextmanager
    def open_sandbox(self, *, own_postgres: bool = False) -> Iterator[Sandbox]:
        """Open a catalog and buckets that no other sandbox uses."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)))
            if own_postgres:
                url, data = stack.enter_context(run_server())
                migrate(url)
            else:
                url, data = stack.enter_context(create_database(self.postgres_url, TEMPLATE)), None
            shop = stack.enter_context(open_shop(self.s3, url, folder / "models"))
            yield Sandbox(shop, self.models, folder, data)


@contextmanager
def run_servers() -> Iterator[Servers]:
    """Start the servers. Stop them at the end of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        url, _ = stack.enter_context(run_server())
        execute(url, f"CREATE DATABASE {TEMPLATE}")
        migrate(make_url(url).set(database=TEMPLATE).render_as_string(hide_password=False))
        s3 = stack.enter_context(run_s3_server(folder / "s3"))
        yield Servers(url, s3, write_tiny_models(folder / "checkpoints"), folder)
