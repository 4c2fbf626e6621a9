"""Commands that bring the catalog over to new champions, and back."""

from typing import Annotated

import typer

from jobs.commands.options import KindArgument, RunOption
from jobs.commands.reports import print_report

app = typer.Typer()


@app.command()
def plan_retag(run: RunOption) -> None:
    """Find what the champions have not answered yet, and write the manifest of a run."""
    from jobs.connections import connect
    from jobs.retag.retag import plan_retag as plan
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(plan(connections, run))


@app.command()
def complete_retag(run: RunOption) -> None:
    """Answer what arrived meanwhile and have all answers come from the champions, in one transaction."""
    from jobs.connections import connect
    from jobs.retag.retag import complete_retag as complete
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(complete(connections, run))


@app.command()
def retag(
    run: Annotated[str | None, typer.Option(help="Go on with this run, which stopped halfway.")] = None,
) -> None:
    """Bring the whole catalog over to the champions: the flow of ``catalog_retag`` without Airflow."""
    from jobs.connections import connect
    from jobs.database.tagging_runs import require_run
    from jobs.retag.retag import retag as retag_catalog
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        if run:
            with connections.engine.connect() as connection:
                require_run(connection, run, "retag")
        print_report(retag_catalog(connections, run))


@app.command()
def rollback(
    kind: KindArgument,
    to: Annotated[int | None, typer.Option(help="The version to go back to; by default the one before.")] = None,
    by: Annotated[str, typer.Option(help="Who decides so.")] = "rollback",
    reason: Annotated[str, typer.Option(help="Why.")] = "rolled back",
) -> None:
    """Have all answers come from an earlier champion again, at once."""
    from jobs.connections import connect
    from jobs.retag.rollback import roll_back
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        print_report(roll_back(connections, kind, to, by, reason))
