"""Commands of the ingest flow, one for each task of ``catalog_ingest`` and one for all of them."""

from typing import Annotated

import typer

from jobs.commands.options import RunOption
from jobs.commands.reports import print_report

app = typer.Typer()

SourceOption = Annotated[
    str | None, typer.Option(help="s3://bucket/prefix, below CATALOG_SOURCE_URI or in CATALOG_OTHER_SOURCES.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Take at most this many images.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Tag everything again, known bytes included.")]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Retry failed images now, instead of weekly after five attempts.")
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done and why; write nothing.")]


@app.command()
def ingest(
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = False,
    plan: PlanOption = False,
    run: Annotated[str | None, typer.Option(help="Go on with this run, which stopped halfway.")] = None,
) -> None:
    """Tag all that is new in the bucket: the whole nightly flow without Airflow."""
    from jobs.connections import connect
    from jobs.ingest.ingest import ingest as ingest_catalog
    from jobs.ingest.plan import IngestOptions, preview_run
    from jobs.settings import load_settings

    options = IngestOptions(limit, force, run, retry_failed)
    with connect(load_settings(source)) as connections:
        print_report(preview_run(connections, options) if plan else ingest_catalog(connections, options))


@app.command()
def discover(
    run: RunOption,
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = False,
    plan: PlanOption = False,
) -> None:
    """Stages 1 and 2: compare the bucket with the catalog and write the manifest of a run."""
    from jobs.connections import connect
    from jobs.ingest.plan import IngestOptions, plan_run, preview_run
    from jobs.settings import load_settings

    options = IngestOptions(limit, force, retry_failed=retry_failed)
    with connect(load_settings(source)) as connections:
        print_report(preview_run(connections, options) if plan else plan_run(connections, run, options))


@app.command()
def tag_shard(shard: Annotated[int, typer.Argument(min=0, help="The shard's number.")], run: RunOption) -> None:
    """Stages 3 to 6: read, decode, predict and write one shard; again, it goes on where it stopped."""
    from jobs.connections import connect
    from jobs.ingest.tag_shard import ShardTagger
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(ShardTagger(connections, device_index=shard).tag(run, [shard])[0])


@app.command()
def publish(run: RunOption) -> None:
    """Stage 7: product tags, vector index, live space."""
    from jobs.connections import connect
    from jobs.ingest.publish import publish_run
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(publish_run(connections.engine, run))


@app.command()
def report(run: RunOption) -> None:
    """Stage 8: add a run up, keep its report and judge it."""
    from jobs.connections import connect
    from jobs.ingest.report import report_run
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(report_run(connections, run))
