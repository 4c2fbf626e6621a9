"""Charts of runs, as coordinates that templates draw as SVG; y grows downwards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.database.run_history import RunSummary

WIDTH, HEIGHT = 640, 160
GAP = 0.25
"""Of a bar's place that stays empty."""
MOST_CLASSES = 8
"""With colours of their own; the others are one class more, which is drawn grey."""
REST = "others"
BIN_MIDDLES = [0.05 + 0.1 * number for number in range(10)]


@dataclass(frozen=True)
class Part:
    """A rectangle of a stacked bar; ``series`` is the number of its colour."""

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class StackedBars:
    """One bar for each run, the oldest at the left; ``highest`` is the value at the top."""

    names: tuple[str, ...]
    parts: tuple[Part, ...]
    highest: float


@dataclass(frozen=True)
class LineChart:
    """One value for each run that has one."""

    points: tuple[tuple[float, float], ...]
    titles: tuple[str, ...]
    highest: float


def draw_entries(runs: Sequence[RunSummary]) -> StackedBars:
    """How many images each run tagged, reused and gave up."""
    names = ("tagged", "reused", "failed")
    return _stack(names, [(run.run_id, [run.tagged, run.reused, run.failed]) for run in reversed(runs)])


def draw_waiting(runs: Sequence[RunSummary]) -> StackedBars:
    """For what the runs waited, as shares of all their waiting."""
    names = ("bucket", "decode", "forward", "database")
    rows = []
    for run in reversed(runs):
        total = sum(run.waiting_seconds.values())
        rows.append((run.run_id, [run.waiting_seconds.get(name, 0) / total if total else 0.0 for name in names]))
    return _stack(names, rows, highest=1.0)


def draw_class_mix(runs: Sequence[RunSummary]) -> StackedBars:
    """The shares of the commonest categories in each run's own answers."""
    totals: Counter[str] = Counter()
    for run in runs:
        totals.update(run.category_counts)
    common = [name for name, _ in totals.most_common(MOST_CLASSES)]
    has_rest = len(totals) > len(common)
    rows = []
    for run in reversed(runs):
        shares = _shares(run.category_counts)
        values = [shares.get(name, 0.0) for name in common]
        rows.append((run.run_id, [*values, max(0.0, sum(shares.values()) - sum(values))] if has_rest else values))
    return _stack((*common, *((REST,) if has_rest else ())), rows, highest=1.0)


def draw_speed(runs: Sequence[RunSummary]) -> LineChart:
    """Images a second, of runs that computed something."""
    return _line([(run.run_id, run.images_per_second if run.tagged else None) for run in reversed(runs)])


def draw_confidence(runs: Sequence[RunSummary]) -> LineChart:
    """The mean confidence of each run's own answers, to the middles of ten bins."""
    values = []
    for run in reversed(runs):
        images = sum(run.confidence_counts)
        weighted = sum(middle * count for middle, count in zip(BIN_MIDDLES, run.confidence_counts, strict=False))
        values.append((run.run_id, weighted / images if images else None))
    return _line(values, highest=1.0)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def _stack(
    names: tuple[str, ...], rows: Sequence[tuple[str, Sequence[float]]], highest: float | None = None
) -> StackedBars:
    top = highest or max((sum(values) for _, values in rows), default=0) or 1
    parts = []
    for place, (title, values) in enumerate(rows):
        step = WIDTH / len(rows)
        # A few runs shall not become a few walls.
        width = min(step * (1 - GAP), 56.0)
        y = float(HEIGHT)
        for series, (name, value) in enumerate(zip(names, values, strict=True)):
            height = HEIGHT * value / top
            if height > 0:
                y -= height
                said = f"{value:.0%}" if highest else f"{value:,.0f}"
                parts.append(
                    Part(series, step * (place + 0.5) - width / 2, y, width, height, f"{title}: {said} {name}")
                )
    return StackedBars(names, tuple(parts), top)


def _line(values: Sequence[tuple[str, float | None]], highest: float | None = None) -> LineChart:
    top = highest or max((value for _, value in values if value is not None), default=0) or 1
    points, titles = [], []
    for place, (title, value) in enumerate(values):
        if value is not None:
            points.append((WIDTH * (place + 0.5) / len(values), HEIGHT * (1 - value / top)))
            titles.append(f"{title}: {value:.2f}" if highest else f"{title}: {value:.1f}")
    return LineChart(tuple(points), tuple(titles), top)
