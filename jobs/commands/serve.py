"""The command of the query service."""

import typer

app = typer.Typer()


@app.command()
def serve() -> None:
    """Answer texts and photos over HTTP by the live models, until it is stopped."""
    from jobs.connections import connect
    from jobs.serve.server import serve as serve_queries
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        serve_queries(connections)
