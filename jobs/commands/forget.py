"""Erase images."""

from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_report
from jobs.connections import connect
from jobs.settings import load_settings

app = typer.Typer()


@app.command(
    epilog=give_examples(
        "catalog forget photos/dress_1.jpg", "catalog forget dress --no-rewrite", "catalog forget  # finish later"
    )
)
def forget(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Object keys, or products. Without any, finish earlier erasures.", show_default=False),
    ] = None,
    rewrite: Annotated[
        bool,
        typer.Option(
            help="Rewrite the files of the tables, which blocks searches for as long as the index of the vectors "
            "takes to build. Without it, deleted bytes stay in the files until you run `catalog forget` again."
        ),
    ] = True,
) -> None:
    """Erase images and everything that was made from them. Delete their objects from the bucket first."""
    # It imports torch with the code of trainings, whose folders it deletes.
    from jobs.erasure.forget import forget_images

    with connect(load_settings()) as connections:
        print_report(forget_images(connections, names or [], rewrite=rewrite))
