"""Commands that prepare the database and the buckets."""

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_report
from jobs.database.migrations import migrate as migrate_database
from jobs.settings import load_settings
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import create_missing_buckets

app = typer.Typer()


@app.command(epilog=give_examples("catalog migrate"))
def migrate() -> None:
    """Create or upgrade the schema in CATALOG_DATABASE_URL."""
    print_report(migrate_database(load_settings().locations.database_url))


@app.command(epilog=give_examples("catalog create-buckets"))
def create_buckets() -> None:
    """Create the buckets of the source and the artifacts if they are missing."""
    settings = load_settings()
    locations = [S3Uri.parse(uri) for uri in (settings.locations.source_uri, settings.locations.artifacts_uri)]
    print_report(
        {"created": create_missing_buckets(settings.locations.s3_endpoint_url, locations, settings.credentials)}
    )
