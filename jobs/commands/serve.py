"""The command of the query service."""

import typer

from jobs.commands.options import give_examples
from jobs.connections import connect
from jobs.serve.server import serve as serve_queries
from jobs.settings import load_settings

app = typer.Typer()


@app.command(epilog=give_examples("catalog serve"))
def serve() -> None:
    """Serve text and image queries over HTTP with the live models."""
    with connect(load_settings()) as connections:
        serve_queries(connections)
