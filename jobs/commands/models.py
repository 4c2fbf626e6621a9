"""Commands for model versions and embedding spaces."""

from typing import Annotated

import typer

from jobs.commands.model_tables import format_model, format_model_list, format_space_list
from jobs.commands.reports import print_report
from jobs.commands.terminal import show
from jobs.connections import connect
from jobs.database.model_listing import list_model_versions, show_model_version
from jobs.database.spaces import drop_space as drop_vectors
from jobs.database.spaces import list_spaces as read_spaces
from jobs.settings import load_settings

app = typer.Typer()
models_app = typer.Typer(help="List and inspect model versions.", no_args_is_help=True)
spaces_app = typer.Typer(help="List and drop embedding spaces, the vectors of each encoder.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(spaces_app, name="spaces")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List all versions, newest first, with their state."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        versions = list_model_versions(connection)
    if as_json:
        print_report([vars(version) for version in versions])
    else:
        show(format_model_list(versions))


@models_app.command("show")
def show_model(
    version: Annotated[int, typer.Argument(help="Number of the version in `models list`.")], as_json: JsonOption = False
) -> None:
    """Show the gates, evaluations, promotions and switches of a version."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        details = show_model_version(connection, version)
    if as_json:
        print_report(details)
    else:
        show(format_model(details))


@spaces_app.command("list")
def list_spaces(as_json: JsonOption = False) -> None:
    """List all spaces, with their encoder, size and state."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        spaces = read_spaces(connection)
    if as_json:
        print_report([vars(space) for space in spaces])
    else:
        show(format_space_list(spaces))


@spaces_app.command("drop")
def drop_space(space: Annotated[int, typer.Argument(help="Number of the space in `spaces list`.")]) -> None:
    """Drop the vectors of a space that is not live. A rollback to its encoder is impossible afterwards."""
    with connect(load_settings()) as connections, connections.engine.begin() as connection:
        drop_vectors(connection, space)
    print_report({"dropped_space_id": space})
