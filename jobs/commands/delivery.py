"""Commands that deliver changes and snapshots of the catalog to other systems."""

import re
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import Listing, print_report, print_table
from jobs.connections import connect
from jobs.database.changes import Cursor
from jobs.database.dead_letters import list_dead_letters, request_retries
from jobs.delivery.export import ExportFormat, export_products
from jobs.delivery.feed import print_changes
from jobs.delivery.webhooks import deliver_changes
from jobs.errors import RefusedError
from jobs.settings import load_settings
from jobs.stopping import finish_steps, is_stop_requested
from jobs.units import format_number, format_time

app = typer.Typer()
letters_app = typer.Typer(help="List changes that a webhook did not accept, and send them again.", no_args_is_help=True)
app.add_typer(letters_app, name="dead-letters")


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,90}", name):
        raise typer.BadParameter("use up to 90 letters, digits, dots, hyphens and underscores")
    return name


ConsumerOption = Annotated[
    str,
    typer.Option(
        "--consumer", callback=_check_name, help="Name under which the database remembers how far this reader is."
    ),
]


@app.command(
    epilog=give_examples(
        "catalog changes --consumer opensearch --since 812345-0",
        "catalog changes --consumer opensearch --follow",
    )
)
def changes(
    consumer: ConsumerOption,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for further changes until SIGTERM.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Move the consumer to this cursor, which `export` has printed."),
    ] = None,
) -> None:
    """Print changes of products as JSON lines, each at least once. A new consumer starts now."""

    def write(lines: str) -> None:
        sys.stdout.write(lines)
        sys.stdout.flush()

    def is_over(is_drained: bool) -> bool:
        return is_stop_requested() or (is_drained and not follow)

    start = Cursor.parse(since) if since else None
    with finish_steps(), connect(load_settings()) as connections:
        print_changes(connections.engine, consumer, start, write, is_over)


@app.command(
    epilog=give_examples(
        "catalog export --to products.parquet",
        "catalog export --format jsonl --vectors --to s3://exchange/products.jsonl",
        "catalog export --format csv --to changed.csv --since 812345-0",
    )
)
def export(
    to: Annotated[str, typer.Option(help="File or s3://bucket/key to write.")],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="parquet, csv or jsonl.")] = "parquet",
    since: Annotated[
        str | None, typer.Option(help="Only products that changed after this cursor, deleted ones marked.")
    ] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Add the mean vector of each product's images.")] = False,
) -> None:
    """Write all products with their category, or those that changed since a cursor, to a file."""
    start = Cursor.parse(since) if since else None
    with connect(load_settings()) as connections:
        print_report(export_products(connections, file_format, to, start, with_vectors=vectors))


@app.command(epilog=give_examples("catalog deliver", "catalog deliver --follow"))
def deliver(
    follow: Annotated[
        bool, typer.Option("--follow", help="Post further changes within seconds, until SIGTERM.")
    ] = False,
) -> None:
    """Post changes of products to the webhooks: the job of the DAG catalog_deliver."""
    settings = load_settings()
    with finish_steps(), connect(settings) as connections:
        reports = deliver_changes(connections.engine, settings.delivery.webhooks, follow=follow)
    # Other failures are tried again by the next run, and need nobody.
    given_up = [f"{report.name} ({report.error})" for report in reports if report.dead_letters or report.is_stuck]
    if given_up:
        raise RefusedError(
            f"webhooks that do not accept changes: {', '.join(given_up)}. "
            'See "Webhooks and dead letters" in docs/runbook.md'
        )
    print_report({"webhooks": [asdict(report) for report in reports]})


@letters_app.command("list", epilog=give_examples("catalog dead-letters list"))
def list_letters() -> None:
    """List the dead letters, oldest first."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        letters = list_dead_letters(connection)
    rows = [
        (
            str(letter.dead_letter_id),
            letter.webhook,
            format_number(letter.changes),
            letter.error,
            format_time(letter.failed_at),
            "yes" if letter.is_waiting else "no",
        )
        for letter in letters
    ]
    print_table(letters, Listing(("letter", "webhook", "changes", "error", "failed", "will be sent again"), rows))


@letters_app.command("retry", epilog=give_examples("catalog dead-letters retry", "catalog dead-letters retry shop"))
def retry_letters(
    webhook: Annotated[str | None, typer.Argument(help="Name of a webhook; by default all.")] = None,
) -> None:
    """Let the next delivery send dead letters again, with the current state of their products."""
    with connect(load_settings()) as connections, connections.engine.begin() as connection:
        print_report({"dead_letters": request_retries(connection, webhook)})
