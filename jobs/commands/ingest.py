"""Commands of the ingest flow, one for each task of ``catalog_ingest`` and one for all of them."""

from functools import partial
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
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done and why; write nothing.")]


@app.command()
def ingest(
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    plan: PlanOption = False,
    run: Annotated[str | None, typer.Option(help="Go on with this run, which stopped halfway.")] = None,
) -> None:
    """Tag all that is new in the bucket: the whole nightly flow without Airflow."""
    from jobs.connections import connect
    from jobs.ingest.ingest import IngestOptions, preview_ingest
    from jobs.ingest.ingest import ingest as ingest_catalog
    from jobs.settings import load_settings

    options = IngestOptions(limit, force, run)
    with connect(load_settings(source)) as connections:
        print_report(preview_ingest(connections, options) if plan else ingest_catalog(connections, options))


@app.command()
def discover(
    run: RunOption,
    source: SourceOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    plan: PlanOption = False,
) -> None:
    """Stages 1 and 2: compare the bucket with the catalog and write the manifest of a run."""
    from jobs.connections import connect
    from jobs.ingest.ingest import IngestOptions, plan_ingest, preview_ingest
    from jobs.settings import load_settings

    options = IngestOptions(limit, force)
    with connect(load_settings(source)) as connections:
        print_report(preview_ingest(connections, options) if plan else plan_ingest(connections, run, options))


@app.command()
def tag_shard(shard: Annotated[int, typer.Argument(min=0, help="The shard's number.")], run: RunOption) -> None:
    """Stages 3 to 6: read, decode, predict and write one shard; again, it goes on where it stopped."""
    from jobs.connections import connect
    from jobs.images.decode_pool import DecodePool
    from jobs.ingest.tag_shard import TagSettings, load_models
    from jobs.ingest.tag_shard import tag_shard as tag
    from jobs.settings import load_settings

    with connect(load_settings()) as to, DecodePool(to.settings.compute.decode_processes) as decode_pool:
        settings = TagSettings.from_settings(to.settings)
        load = partial(load_models, to.engine, to.store, settings, device_index=shard)
        print_report(tag(to.engine, to.store, to.artifacts, run, shard, settings, load, decode_pool))


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
    from jobs.ingest.drift import DriftSettings
    from jobs.ingest.report import report_run
    from jobs.settings import load_settings

    settings = load_settings()
    limit, drift = settings.runs.failed_share_limit, DriftSettings.from_settings(settings)
    with connect(settings) as connections:
        print_report(report_run(connections.engine, connections.store, connections.artifacts, run, limit, drift))
