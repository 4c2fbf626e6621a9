"""Draw the charts of the overview: what the latest runs did, one place for each run, oldest on the left."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC

from jobs.charts import (
    OTHER_COLOR,
    Chart,
    Place,
    Series,
    Unit,
    choose_colors,
    draw_lines,
    draw_stacked_bars,
)
from jobs.database.run_history import RunSummary

MAX_RUNS = 60
"""Maximum number of runs on a chart. The dates below the axis show how far back they go."""
MAX_CATEGORIES = 8
"""Maximum number of categories on a chart. The others are added up."""
OTHERS = "others"
STAGES = ("bucket", "decode", "forward", "database")


def draw_runs(runs: Sequence[RunSummary], categories: Sequence[str]) -> list[Chart]:
    """Draw the runs that did something, newest first in ``runs``. Each chart leaves out runs without data for it.

    ``categories`` are all categories of the catalog, which determine the colors.
    """
    busy = [run for run in runs if run.entries][:MAX_RUNS]
    charts = []
    if busy:
        charts += [_draw_bars("Images per run", busy, ["tagged", "reused", "failed"], vars)]
    if timed := [run for run in busy if run.tagged and run.images_per_second is not None]:
        charts += [_draw_values("Images per second", timed, [run.images_per_second for run in timed])]
    if tagged := [run for run in busy if run.category_counts]:
        charts += [_draw_categories(tagged, choose_colors(categories)), _draw_confidence(tagged)]
    if waited := [run for run in busy if sum(run.waiting_seconds.values()) > 0]:
        charts += [_draw_bars("Bottleneck per run", waited, STAGES, lambda run: _divide(run.waiting_seconds), "share")]
    return charts


def _make_places(runs: Sequence[RunSummary]) -> list[Place]:
    """Name the places of runs, oldest first, by date, or by time if all runs are of one day."""
    times = [run.started_at.astimezone(UTC) for run in reversed(runs)]
    tick = "%-d %b" if times[0].date() != times[-1].date() else "%H:%M"
    if len(runs) == 1:
        tick = "%-d %b, %H:%M"
    return [Place(run.title, time.strftime(tick)) for run, time in zip(reversed(runs), times, strict=True)]


def _draw_bars(
    title: str,
    runs: Sequence[RunSummary],
    names: Sequence[str],
    read: Callable[[RunSummary], dict[str, float]],
    unit: Unit = "number",
    colors: dict[str, int] | None = None,
) -> Chart:
    values = [read(run) for run in reversed(runs)]
    series = [
        Series(name, [one.get(name, 0) for one in values], colors.get(name, OTHER_COLOR) if colors else number)
        for number, name in enumerate(names)
    ]
    return draw_stacked_bars(title, _make_places(runs), series, unit, highest=1.0 if unit == "share" else None)


def _draw_values(
    title: str, runs: Sequence[RunSummary], values: Sequence[float | None], unit: Unit = "number"
) -> Chart:
    series = Series(title, list(reversed(values)))
    return draw_lines(title, _make_places(runs), [series], unit, highest=1.0 if unit == "share" else None)


def _draw_categories(runs: Sequence[RunSummary], colors: dict[str, int]) -> Chart:
    totals: Counter[str] = Counter()
    for run in runs:
        totals.update(run.category_counts)
    common = sorted(name for name, _ in totals.most_common(MAX_CATEGORIES))

    def read(run: RunSummary) -> dict[str, float]:
        shares = _divide(run.category_counts)
        return shares | {OTHERS: sum(share for name, share in shares.items() if name not in common)}

    names = [*common, OTHERS] if len(totals) > len(common) else common
    return _draw_bars("Categories of newly tagged images", runs, names, read, "share", colors)


def _draw_confidence(runs: Sequence[RunSummary]) -> Chart:
    """Draw the mean confidence of each run, estimated from the centers of its ten bins."""
    means = []
    for run in runs:
        images = sum(run.confidence_counts)
        weighted = sum((0.1 * number + 0.05) * count for number, count in enumerate(run.confidence_counts))
        means.append(weighted / images if images else None)
    return _draw_values("Mean confidence of newly tagged images", runs, means, "share")


def _divide(amounts: dict[str, int] | dict[str, float]) -> dict[str, float]:
    """Turn amounts into shares of their sum."""
    total = sum(amounts.values())
    return {name: amount / total for name, amount in amounts.items()} if total else {}
