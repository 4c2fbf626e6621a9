"""Commands that retag the catalog with new champions, and roll back."""

from typing import Annotated

import typer

from jobs.commands.options import KindArgument, RunOption, give_examples
from jobs.commands.terminal import print_report
from jobs.connections import connect
from jobs.database.tagging_runs import require_run
from jobs.retag.complete import complete_retag as complete
from jobs.retag.retag import plan_retag as plan
from jobs.retag.retag import retag as retag_catalog
from jobs.retag.rollback import roll_back
from jobs.settings import load_settings

app = typer.Typer()


@app.command(epilog=give_examples("catalog plan-retag --run retag-1"))
def plan_retag(run: RunOption) -> None:
    """Find the images that the champions have not tagged, and write the manifest of a run."""
    with connect(load_settings()) as connections:
        print_report(plan(connections, run))


@app.command(epilog=give_examples("catalog complete-retag --run retag-1"))
def complete_retag(run: RunOption) -> None:
    """Tag images that arrived during the retag, and switch to the champions in one transaction."""
    with connect(load_settings()) as connections:
        print_report(complete(connections, run))


@app.command(epilog=give_examples("catalog retag", "catalog retag --run retag-20260131T020000.000000Z"))
def retag(
    run: Annotated[str | None, typer.Option(help="Resume this unfinished run.")] = None,
) -> None:
    """Retag the whole catalog with the champions: the flow of catalog_retag without Airflow."""
    with connect(load_settings()) as connections:
        if run:
            with connections.engine.connect() as connection:
                require_run(connection, run, "retag")
        print_report(retag_catalog(connections, run))


@app.command(
    epilog=give_examples(
        "catalog rollback classifier", 'catalog rollback encoder --to 3 --by anna --reason "worse results for shoes"'
    )
)
def rollback(
    kind: KindArgument,
    to: Annotated[int | None, typer.Option(help="Version to switch back to; by default the previous one.")] = None,
    by: Annotated[str, typer.Option(help="Name to record in catalog.promotions.")] = "rollback",
    reason: Annotated[str, typer.Option(help="Reason to record.")] = "rolled back",
) -> None:
    """Switch back to an earlier champion at once."""
    with connect(load_settings()) as connections:
        print_report(roll_back(connections, kind, to, by, reason))
