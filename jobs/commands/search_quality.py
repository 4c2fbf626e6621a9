"""The commands that keep searches right and fast."""

from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_report
from jobs.connections import connect
from jobs.errors import RefusedError
from jobs.search_quality.index_care import care_for_indexes
from jobs.search_quality.recall_check import RecallReport, check_recall
from jobs.settings import load_settings

app = typer.Typer()

RunOption = Annotated[str | None, typer.Option(help="Run that shows the progress of this job.")]


@app.command("check-recall", epilog=give_examples("catalog check-recall"))
def check(run: RunOption = None) -> None:
    """Compare searches with exact ones, and store how many neighbors they find."""
    settings = load_settings()
    with connect(settings) as connections:
        report = check_recall(connections.engine, settings.runs.recall_bound, run)
        print_report(report)
        _require_recall(report)


@app.command(epilog=give_examples("catalog care"))
def care(run: RunOption = None) -> None:
    """Rebuild, vacuum and analyze indexes and tables that need it."""
    settings = load_settings()
    with connect(settings) as connections:
        report = care_for_indexes(connections.engine, settings.runs.recall_bound, run)
        print_report(report)
        if report.recall:
            _require_recall(report.recall)


def _require_recall(report: RecallReport) -> None:
    """End with an error if a check is below its bound.

    Raises:
        RefusedError: it is. The message says what to do.
    """
    if not report.below:
        return
    worst = min(report.below, key=lambda check: check.recall)
    others = f", and {len(report.below) - 1} more below it" if len(report.below) > 1 else ""
    raise RefusedError(
        f'{worst.sentence}, less than CATALOG_RECALL_BOUND={worst.bound}{others}: see "Recall is below its bound" in '
        "docs/runbook.md"
    )
