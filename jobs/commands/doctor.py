"""Check the installation."""

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import Listing, print_table
from jobs.doctor.doctor import examine_installation

app = typer.Typer()


@app.command(epilog=give_examples("catalog doctor", "catalog doctor --json"))
def doctor() -> None:
    """Check the installation, one line for each part: settings, database, bucket, models, Airflow, machine."""
    results = examine_installation()
    print_table(results, Listing(("check", "state", "detail"), [(one.name, one.state, one.detail) for one in results]))
    raise typer.Exit(next((one.exit_code for one in results if one.exit_code), 0))
