"""Format model versions and spaces as text."""

from collections.abc import Iterable, Sequence

from jobs.database.model_listing import ListedEvaluation, ModelDetails, ModelSummary
from jobs.database.spaces import SpaceSummary
from jobs.retrain.evaluate.evaluation_files import PAGE_FILE
from jobs.storage.uri import S3Uri


def format_model_list(versions: Sequence[ModelSummary]) -> str:
    """Return a table with one line for each version."""
    rows = [
        (
            str(version.model_version_id),
            version.kind,
            _describe_state(version),
            f"{version.engine} {version.precision or 'auto'}",
            version.created_at,
            version.run_id or "-",
        )
        for version in versions
    ]
    return _format_table(("version", "kind", "state", "served by", "created", "run"), rows)


def format_model(details: ModelDetails) -> str:
    """Return everything known about a version."""
    summary = details.summary
    answers = (
        f"{len(details.categories)} categories: {', '.join(details.categories)}"
        if details.categories
        else f"vectors of {details.dimensions} dimensions"
    )
    lines = [
        f"{summary.kind} {summary.model_version_id}: {_describe_state(summary)}",
        f"  {answers}",
        f"  served by {summary.engine} {summary.precision or 'auto'}{_describe_origin(summary)}",
        f"  artifact  {summary.artifact_uri}",
        f"  weights   {details.weights_sha256}",
        f"  snapshot  {summary.data_snapshot or '-'}",
        f"  trained   {summary.created_at}, run {summary.run_id or '-'}",
        f"  code      {' '.join([details.code_version, *(f'{n} {v}' for n, v in details.library_versions.items())])}",
    ]
    for evaluation in details.evaluations:
        lines += _format_evaluation(evaluation)
    lines += [
        f"promoted {promotion.promoted_at} by {promotion.promoted_by}, instead of "
        f"{promotion.replaced_version_id or 'none'}: {promotion.reason}"
        for promotion in details.promotions
    ]
    lines += [
        f"answers from {switch.switched_at} on, instead of {switch.replaced_version_id or 'none'}"
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
    compared = f"beside {evaluation.champion_version_id}" if evaluation.champion_version_id else "without a champion"
    page = S3Uri.parse(evaluation.artifact_uri) / PAGE_FILE
    return [
        f"evaluated {evaluation.evaluated_at} {compared}, run {evaluation.run_id}",
        f"  page {page}",
        *(f"  {decision.verdict:<8} {decision.gate}: {decision.sentence}" for decision in evaluation.gates),
    ]


def _describe_origin(version: ModelSummary) -> str:
    return f", built from {version.built_from}" if version.built_from else ""


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
