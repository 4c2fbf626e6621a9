"""Commands of the ingest flow, one for each task of ``catalog_ingest`` and one for all of them."""

from typing import Annotated

import typer

from jobs.commands.options import RunOption, give_examples
from jobs.commands.terminal import print_report
from jobs.connections import connect
from jobs.database.tagging_runs import require_shard
from jobs.ingest.ingest import ingest as ingest_catalog
from jobs.ingest.plan import IngestOptions, plan_run, preview_run
from jobs.ingest.publish import publish_run
from jobs.ingest.report import report_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.ingest.watch import watch as watch_events
from jobs.settings import load_settings

app = typer.Typer()

SourceOption = Annotated[
    str | None, typer.Option(help="s3://bucket/prefix, below CATALOG_SOURCE_URI or in CATALOG_OTHER_SOURCES.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Process at most this many images.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Tag every image again, even if its bytes are known.")]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Retry failed images now, instead of weekly after five attempts.")
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Print what would be done and why, without writing anything.")]


@app.command(
    epilog=give_examples(
        "catalog ingest",
        "catalog ingest --plan",
        "catalog ingest --source s3://images/summer/ --limit 1000",
        "catalog ingest --retry-failed",
    )
)
def ingest(
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = False,
    plan: PlanOption = False,
    run: Annotated[str | None, typer.Option(help="Resume this unfinished run.")] = None,
) -> None:
    """Tag all new images in the bucket: the whole nightly flow without Airflow."""
    options = IngestOptions(limit, force, run, retry_failed)
    with connect(load_settings(source)) as connections:
        print_report(preview_run(connections, options) if plan else ingest_catalog(connections, options))


@app.command(epilog=give_examples("catalog watch"))
def watch() -> None:
    """Tag images soon after their upload: follow the bucket's events in CATALOG_EVENT_QUEUE_URL."""
    with connect(load_settings()) as connections:
        watch_events(connections)


@app.command(epilog=give_examples("catalog discover --run night-1", "catalog discover --run night-1 --plan"))
def discover(
    run: RunOption,
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = False,
    plan: PlanOption = False,
) -> None:
    """Stages 1 and 2: compare the bucket with the catalog and write the manifest of a run."""
    options = IngestOptions(limit, force, retry_failed=retry_failed)
    with connect(load_settings(source)) as connections:
        print_report(preview_run(connections, options) if plan else plan_run(connections, run, options))


@app.command(epilog=give_examples("catalog tag-shard 3 --run night-1"))
def tag_shard(shard: Annotated[int, typer.Argument(min=0, help="Number of the shard.")], run: RunOption) -> None:
    """Stages 3 to 6: read, decode, predict and write one shard. A repeated call resumes it."""
    with connect(load_settings()) as connections:
        with connections.engine.connect() as connection:
            require_shard(connection, run, shard)
        print_report(ShardTagger(connections, device_index=shard).tag(run, [shard])[0])


@app.command(epilog=give_examples("catalog publish --run night-1"))
def publish(run: RunOption) -> None:
    """Stage 7: update the product tags and the vector index, and make the space live."""
    with connect(load_settings()) as connections:
        print_report(publish_run(connections.engine, run))


@app.command(epilog=give_examples("catalog report --run night-1"))
def report(run: RunOption) -> None:
    """Stage 8: summarize a run, store its report and check it against the limits."""
    with connect(load_settings()) as connections:
        print_report(report_run(connections, run))
