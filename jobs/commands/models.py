"""Commands that show and clear what the catalog keeps: model versions and embedding spaces."""

from typing import Annotated

import typer

from jobs.commands.reports import print_report

app = typer.Typer()
models_app = typer.Typer(help="Model versions: which there are, and how each was judged.", no_args_is_help=True)
spaces_app = typer.Typer(help="Embedding spaces: the vectors of each encoder.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(spaces_app, name="spaces")
