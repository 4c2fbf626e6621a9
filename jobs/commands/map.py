"""The command that draws the map of the catalog."""

from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_report
from jobs.connections import connect
from jobs.embedding_map.draw import draw_map
from jobs.settings import load_settings

app = typer.Typer()


@app.command("map", epilog=give_examples("catalog map", "catalog map --run week-1"))
def draw(
    run: Annotated[str | None, typer.Option(help="Run that shows the progress of this job.")] = None,
) -> None:
    """Draw the map of the catalog again if its images have changed."""
    with connect(load_settings()) as connections:
        print_report(draw_map(connections.engine, run))
