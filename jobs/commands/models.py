"""Show model versions and embedding spaces, and drop the vectors of a space."""

from collections.abc import Sequence
from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import Listing, print_report, print_table, print_text
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
from jobs.units import format_number, format_size, format_stored_time

app = typer.Typer()
models_app = typer.Typer(help="List and inspect model versions.", no_args_is_help=True)
spaces_app = typer.Typer(help="List and drop embedding spaces, the vectors of each encoder.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(spaces_app, name="spaces")


@models_app.command("list", epilog=give_examples("catalog models list", "catalog models list --json"))
def list_models() -> None:
    """List all versions, newest first, with their state."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        versions = list_model_versions(connection)
    print_table(versions, list_version_rows(versions))


@models_app.command("show", epilog=give_examples("catalog models show 4"))
def show_model(
    version: Annotated[int, typer.Argument(help="Number of the version in `models list`.")],
) -> None:
    """Show the gates, evaluations, promotions and switches of a version."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        details = show_model_version(connection, version)
    print_text(details, format_model(details))


@spaces_app.command("list", epilog=give_examples("catalog spaces list"))
def list_spaces() -> None:
    """List all spaces, with their encoder, size and state."""
    with connect(load_settings()) as connections, connections.engine.connect() as connection:
        spaces = read_spaces(connection)
    print_table(spaces, list_space_rows(spaces))


@spaces_app.command("drop", epilog=give_examples("catalog spaces drop 2"))
def drop_space(space: Annotated[int, typer.Argument(help="Number of the space in `spaces list`.")]) -> None:
    """Drop the vectors of a space that is not live. A rollback to its encoder is impossible afterwards."""
    with connect(load_settings()) as connections, connections.engine.begin() as connection:
        drop_vectors(connection, space)
    print_report({"dropped_space_id": space})


def list_version_rows(versions: Sequence[ModelSummary]) -> Listing:
    """Return a table with one line for each version."""
    rows = [
        (
            str(version.model_version_id),
            version.kind,
            _describe_state(version),
            "; ".join(version.builds) or "none yet",
            format_stored_time(version.created_at),
            version.run_id or "-",
        )
        for version in versions
    ]
    return Listing(("version", "kind", "state", "served by", "created", "run"), rows)


def list_space_rows(spaces: Sequence[SpaceSummary]) -> Listing:
    """Return a table with one line for each space. A dropped space has no vectors."""
    rows = [
        (
            str(space.space_id),
            str(space.encoder_version_id),
            space.state,
            "dropped" if space.vectors is None else format_number(space.vectors),
            str(space.dimensions),
            format_size(space.size_bytes),
            format_stored_time(space.created_at),
        )
        for space in spaces
    ]
    return Listing(("space", "encoder", "state", "vectors", "dimensions", "size", "created"), rows)


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
        f"  trained   {format_stored_time(summary.created_at)}, run {summary.run_id or '-'}",
        f"  code      {' '.join([details.code_version, *(f'{n} {v}' for n, v in details.library_versions.items())])}",
    ]
    for evaluation in details.evaluations:
        lines += _format_evaluation(evaluation)
    lines += [
        f"promoted {format_stored_time(promotion.promoted_at)} by {promotion.promoted_by}, replacing "
        f"{promotion.replaced_version_id or 'none'}: {promotion.reason}"
        for promotion in details.promotions
    ]
    lines += [
        f"live since {format_stored_time(switch.switched_at)}, replacing {switch.replaced_version_id or 'none'}"
        for switch in details.switches
    ]
    return "\n".join(lines)


def _format_evaluation(evaluation: ListedEvaluation) -> list[str]:
    compared = f"against {evaluation.champion_version_id}" if evaluation.champion_version_id else "without a champion"
    page = S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE
    return [
        f"evaluated {format_stored_time(evaluation.evaluated_at)} {compared}, run {evaluation.run_id}",
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
