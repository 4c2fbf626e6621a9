"""Show model versions and embedding spaces, and drop the vectors of a space."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from jobs.commands.terminal import print_report, show
from jobs.connections import connect
from jobs.database.model_builds import RegisteredBuild
from jobs.database.model_listing import (
    ListedEvaluation,
    ModelDetails,
    ModelSummary,
    list_model_versions,
    show_model_version,
)
from jobs.database.spaces import SpaceSummary
from jobs.database.spaces import drop_space as drop_vectors
from jobs.database.spaces import list_spaces as read_spaces
from jobs.retrain.evaluate.evaluation_record import PAGE_FILE
from jobs.settings import load_settings
from jobs.storage.locations import S3Uri

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


def format_model_list(versions: Sequence[ModelSummary]) -> str:
    """Return a table with one line for each version."""
    rows = [
        (
            str(version.model_version_id),
            version.kind,
            _describe_state(version),
            "; ".join(version.builds) or "none yet",
            version.created_at,
            version.run_id or "-",
        )
        for version in versions
    ]
    return _format_table(("version", "kind", "state", "served by", "created", "run"), rows)


def format_model(details: ModelDetails) -> str:
    """Return everything known about a version."""
    summary = details.summary
    output = (
        f"{len(details.categories)} categories: {', '.join(details.categories)}"
        if details.categories
        else f"vectors of {details.dimensions} dimensions"
    )
    lines = [
        f"{summary.kind} {summary.model_version_id}: {_describe_state(summary)}",
        f"  {output}",
        *(f"  build     {_describe_build(build)}" for build in details.builds),
        f"  artifact  {summary.artifact_uri}",
        f"  weights   {details.weights_sha256}",
        f"  snapshot  {summary.data_snapshot or '-'}",
        f"  trained   {summary.created_at}, run {summary.run_id or '-'}",
        f"  code      {' '.join([details.code_version, *(f'{n} {v}' for n, v in details.library_versions.items())])}",
    ]
    for evaluation in details.evaluations:
        lines += _format_evaluation(evaluation)
    lines += [
        f"promoted {promotion.promoted_at} by {promotion.promoted_by}, replacing "
        f"{promotion.replaced_version_id or 'none'}: {promotion.reason}"
        for promotion in details.promotions
    ]
    lines += [
        f"live since {switch.switched_at}, replacing {switch.replaced_version_id or 'none'}"
        for switch in details.switches
    ]
    return "\n".join(lines)


def format_space_list(spaces: Sequence[SpaceSummary]) -> str:
    """Return a table with one line for each space. A dropped space has no vectors."""
    rows = [
        (
            str(space.space_id),
            str(space.encoder_version_id),
            space.state,
            "dropped" if space.vectors is None else str(space.vectors),
            str(space.dimensions),
            f"{space.size_bytes / 1e6:.1f} MB",
            space.created_at,
        )
        for space in spaces
    ]
    return _format_table(("space", "encoder", "state", "vectors", "dimensions", "size", "created"), rows)


def _format_evaluation(evaluation: ListedEvaluation) -> list[str]:
    compared = f"against {evaluation.champion_version_id}" if evaluation.champion_version_id else "without a champion"
    page = S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE
    return [
        f"evaluated {evaluation.evaluated_at} {compared}, run {evaluation.run_id}",
        f"  page {page}",
        *(f"  {decision.verdict:<8} {decision.gate}: {decision.sentence}" for decision in evaluation.gates),
    ]


def _describe_build(build: RegisteredBuild) -> str:
    figures = ", ".join(
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in (build.fidelity or {}).items()
        if value is not None and name != "images"
    )
    verdict = f"rejected: {'; '.join(build.losses)}" if build.losses else figures or "not compared with float32"
    return f"{build.describe()}, made on {build.machine}: {verdict}"


def _describe_state(version: ModelSummary) -> str:
    if version.is_champion and version.is_live:
        return "champion, live"
    if version.is_champion:
        return "champion, not live yet"
    if version.is_live:
        return "live"
    return "was live" if version.was_live else "candidate"


def _format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
