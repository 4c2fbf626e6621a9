"""Run ``python -m demo``: the whole system on a rendered catalog, or on a folder of your own images."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli import run_app, show_progress_on_terminal
from jobs.commands.local import AirflowPortOption, PostgresPortOption, QueryPortOption, S3PortOption
from jobs.commands.terminal import show

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def demo(
    postgres_port: PostgresPortOption,
    s3_port: S3PortOption,
    airflow_port: AirflowPortOption,
    query_port: QueryPortOption,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of your own images, with or without a subfolder for each category.")
    ] = None,
) -> None:
    """Run the whole flow: labels, training, gates, promotion, tagging, search."""
    # Imported here to keep --help fast.
    from demo.demo import run_demo
    from jobs.local.ports import WantedPorts

    show_progress_on_terminal()
    run_demo(show, WantedPorts(postgres_port, s3_port, airflow_port, query_port), photos)


if __name__ == "__main__":
    run_app(app)
