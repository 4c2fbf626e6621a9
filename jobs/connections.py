"""Connect to the database and the bucket. Every job opens its connections once and passes them on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, exc

from jobs.database.engine import create_database_engine, describe_address, translate_database_errors
from jobs.errors import ConfigurationError
from jobs.settings import Settings
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ObjectStore

# SQLSTATEs of a missing schema, table, column or function.
MISSING_STATES = {"3F000", "42P01", "42703", "42883"}


@dataclass(frozen=True)
class Connections:
    """The settings, the connections to the database and the bucket, and the two locations in the bucket."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    source: S3Uri
    artifacts: S3Uri


@contextmanager
def connect(settings: Settings) -> Iterator[Connections]:
    """Connect for the duration of a job.

    Raises:
        RetryableError: the database is unavailable, now or later in the job.
        ConfigurationError: the catalog schema is missing or outdated.
    """
    connections = open_connections(settings)
    try:
        with translate_catalog_errors(settings.locations.database_url):
            yield connections
    finally:
        connections.engine.dispose()


def open_connections(settings: Settings) -> Connections:
    """Return connections that open on first use and stay open, as a server needs them."""
    return Connections(
        settings,
        create_database_engine(settings.locations.database_url),
        ObjectStore(
            settings.locations.s3_endpoint_url, settings.credentials, connections=settings.compute.read_threads + 2
        ),
        S3Uri.parse(settings.locations.source_uri).as_folder(),
        S3Uri.parse(settings.locations.artifacts_uri).as_folder(),
    )


@contextmanager
def translate_catalog_errors(database_url: str) -> Iterator[None]:
    """Turn database exceptions into the errors that `connect` raises."""
    with translate_database_errors(database_url), _require_schema(database_url):
        yield


@contextmanager
def _require_schema(database_url: str) -> Iterator[None]:
    try:
        yield
    except exc.ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) not in MISSING_STATES:
            raise
        reason = str(error.orig).splitlines()[0]
        raise ConfigurationError(
            f"the catalog schema at {describe_address(database_url)} is missing or outdated ({reason}). "
            "Run `catalog migrate`"
        ) from error
