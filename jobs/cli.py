"""``python -m jobs COMMAND``: one command for each task of the DAGs, and those that people type.

Reports are JSON, the last line of standard output; progress and faults go to standard error. Heavy modules
are imported by the command that needs them, so that ``--help`` is quick.
"""

import json
import logging
import os
import sys
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.errors import JobError

app = typer.Typer(
    help="Jobs of the catalog tagger.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)

RunOption = Annotated[str, typer.Option("--run", help="The run's id; the same id resumes the same run.")]
SourceOption = Annotated[str | None, typer.Option(help="s3://bucket/prefix instead of CATALOG_SOURCE_URI.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Take at most this many images.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Tag everything again, known bytes included.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done and why; write nothing.")]
CategoryOption = Annotated[str | None, typer.Option(help="Only products of this category.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="How many answers.")]
PostgresPortOption = Annotated[int | None, typer.Option(envvar="CATALOG_POSTGRES_PORT")]
S3PortOption = Annotated[int | None, typer.Option(envvar="CATALOG_S3_PORT")]
AirflowPortOption = Annotated[int | None, typer.Option(envvar="CATALOG_AIRFLOW_PORT")]
SheetOption = Annotated[Path | None, typer.Option("--png", help="Draw the answers with their photos into this file.")]


def main() -> None:
    """Run a command; a known fault becomes one line and its exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    for noisy in ("botocore", "boto3", "urllib3", "httpx", "yoyo"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Read when Transformers is imported, also by the processes that a job starts.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from jobs.settings import load_env_file

    # Before the options are read, whose defaults come from the environment.
    load_env_file()
    try:
        app()
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _report(record: Any) -> None:
    typer.echo(json.dumps(asdict(record) if is_dataclass(record) and not isinstance(record, type) else record))


@app.command()
def migrate() -> None:
    """Create or upgrade the schema in CATALOG_DATABASE_URL."""
    from jobs.database.migrations import migrate as migrate_database
    from jobs.settings import load_settings

    _report(migrate_database(load_settings().database_url))


@app.command()
def create_buckets() -> None:
    """Create the buckets that the settings name, at an S3 endpoint of one's own."""
    from jobs.settings import load_settings
    from jobs.storage.buckets import create_missing_buckets
    from jobs.storage.uri import S3Uri

    settings = load_settings()
    locations = [S3Uri.parse(uri) for uri in (settings.source_uri, settings.artifacts_uri)]
    _report({"created": create_missing_buckets(settings.s3_endpoint_url, locations)})


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
    from jobs.settings import load_settings
    from jobs.tagging.ingest import IngestOptions, preview_ingest
    from jobs.tagging.ingest import ingest as ingest_catalog

    options = IngestOptions(limit, force, run)
    with connect(load_settings(source)) as connections:
        _report(preview_ingest(connections, options) if plan else ingest_catalog(connections, options))


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
    from jobs.settings import load_settings
    from jobs.tagging.ingest import IngestOptions, plan_ingest, preview_ingest

    options = IngestOptions(limit, force)
    with connect(load_settings(source)) as connections:
        _report(preview_ingest(connections, options) if plan else plan_ingest(connections, run, options))


@app.command()
def tag_shard(shard: Annotated[int, typer.Argument(min=0, help="The shard's number.")], run: RunOption) -> None:
    """Stages 3 to 6: read, decode, predict and write one shard; again, it goes on where it stopped."""
    from jobs.connections import connect
    from jobs.settings import load_settings
    from jobs.tagging.tag_shard import TagSettings, load_predictor
    from jobs.tagging.tag_shard import tag_shard as tag

    with connect(load_settings()) as connections:
        settings = TagSettings.from_settings(connections.settings)
        load = partial(load_predictor, connections.engine, connections.store, settings, device_index=shard)
        _report(tag(connections.engine, connections.store, connections.artifacts, run, shard, settings, load))


@app.command()
def publish(run: RunOption) -> None:
    """Stage 7: product tags, vector index, live space."""
    from jobs.connections import connect
    from jobs.settings import load_settings
    from jobs.tagging.publish import publish_run

    with connect(load_settings()) as connections:
        _report(publish_run(connections.engine, run))


@app.command()
def report(run: RunOption) -> None:
    """Stage 8: add a run up, keep its report and judge it."""
    from jobs.connections import connect
    from jobs.settings import load_settings
    from jobs.tagging.report import report_run

    with connect(load_settings()) as connections:
        limit = connections.settings.failed_share_limit
        _report(report_run(connections.engine, connections.store, connections.artifacts, run, limit))


@app.command("train-starter")
def train_starter_models(
    labelled: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="labels.csv, or a folder a category.")],
    classifier_base: Annotated[str | None, typer.Option(help="Directory or hub id; CATALOG_CLASSIFIER_BASE.")] = None,
    encoder_base: Annotated[str | None, typer.Option(help="Directory or hub id; CATALOG_ENCODER_BASE.")] = None,
    encoder_epochs: Annotated[int, typer.Option(min=0, help="0 takes the encoder as it is.")] = 1,
    blank: Annotated[bool, typer.Option("--blank", help="Start small models from random weights instead.")] = False,
) -> None:
    """Train a first classifier and encoder on labelled photos and make them the champions."""
    import tempfile

    from jobs.connections import connect
    from jobs.settings import load_settings
    from jobs.training.starter import (
        BLANK_TRAINING,
        resolve_bases,
        train_starter,
        tune_pretrained,
        write_blank_bases,
    )

    settings = load_settings()
    with connect(settings) as connections, tempfile.TemporaryDirectory() as scratch:
        if blank:
            bases, training = write_blank_bases(Path(scratch), labelled), BLANK_TRAINING
        else:
            bases = resolve_bases(classifier_base or settings.classifier_base, encoder_base or settings.encoder_base)
            training = tune_pretrained(encoder_epochs)
        _report(train_starter(connections, labelled, bases, training))


@app.command()
def embed_text(query_text: Annotated[str, typer.Argument(help="The text that SQL will ask for.")]) -> None:
    """Embed a text, so that catalog.search_products can be asked for it in SQL."""
    from jobs.connections import connect
    from jobs.search.by_text import embed_text_query
    from jobs.search.encoders import load_text_embedder
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        is_new = embed_text_query(connections.engine, partial(load_text_embedder, connections), query_text)
    _report({"query_text": query_text, "is_new": is_new})


@app.command()
def search(
    query_text: Annotated[str | None, typer.Argument(help="What to look for; without it, a prompt.")] = None,
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find the products that fit a text best."""
    from jobs.connections import connect
    from jobs.search.console import prompt_for_searches, show_text_search
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        if query_text is None:
            prompt_for_searches(connections, k, category, partial(input, "search> "), typer.echo)
        else:
            show_text_search(connections, query_text, k, category, png, typer.echo)


@app.command()
def similar(
    product_id: Annotated[str, typer.Argument(help="The product to compare with.")],
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find the products that look most like one."""
    from jobs.connections import connect
    from jobs.search.console import show_similar_products
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        show_similar_products(connections, product_id, k, category, png, typer.echo)


stack_app = typer.Typer(
    help="The local stack: Postgres, an S3 endpoint and Airflow on this machine.", no_args_is_help=True
)
app.add_typer(stack_app, name="stack")


@stack_app.command("up")
def stack_up(
    postgres_port: PostgresPortOption = None,
    s3_port: S3PortOption = None,
    airflow_port: AirflowPortOption = None,
    airflow: Annotated[bool, typer.Option(help="Start Airflow too.")] = True,
) -> None:
    """Start what does not run yet; data of earlier starts are found again."""
    from jobs.local.airflow_services import AirflowOptions
    from jobs.local.console import count_gpus, format_status
    from jobs.local.ports import WantedPorts
    from jobs.local.stack import start_stack
    from jobs.settings import LOCAL_STACK_FOLDER, PROJECT_ROOT, names_locations

    uses_stack = not names_locations(PROJECT_ROOT)
    options = AirflowOptions(pool_slots=count_gpus() or 1, jobs_use_stack=uses_stack) if airflow else None
    status = start_stack(LOCAL_STACK_FOLDER, WantedPorts(postgres_port, s3_port, airflow_port), options)
    typer.echo(format_status(status))


@stack_app.command("status")
def stack_status() -> None:
    """What runs, where, and how to log in."""
    from jobs.local.console import format_status
    from jobs.local.stack import read_status
    from jobs.settings import LOCAL_STACK_FOLDER

    typer.echo(format_status(read_status(LOCAL_STACK_FOLDER)))


@stack_app.command("down")
def stack_down() -> None:
    """End every process of the stack; its data stay."""
    from jobs.local.stack import stop_stack
    from jobs.settings import LOCAL_STACK_FOLDER

    stop_stack(LOCAL_STACK_FOLDER)
    typer.echo("the local stack is down; its data stay in .local/")


@app.command()
def demo(
    postgres_port: PostgresPortOption = None,
    s3_port: S3PortOption = None,
    airflow_port: AirflowPortOption = None,
) -> None:
    """Show the whole flow on a rendered catalog: stack, starter models, an Airflow run, questions and answers."""
    from jobs.local.demo import run_demo
    from jobs.local.ports import WantedPorts

    run_demo(typer.echo, WantedPorts(postgres_port, s3_port, airflow_port))
