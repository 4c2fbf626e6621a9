"""Options and help texts that several commands share."""

from typing import Annotated, Literal

import typer

RunOption = Annotated[str, typer.Option("--run", help="Id of the run. The same id resumes the same run.")]
Kind = Literal["classifier", "encoder"]
KindArgument = Annotated[Kind, typer.Argument(help="classifier or encoder.")]


def give_examples(*commands: str) -> str:
    """Return the end of a help text: examples, one for each line."""
    return "\n".join(["Examples:", *(f"$ {command}" for command in commands)])
