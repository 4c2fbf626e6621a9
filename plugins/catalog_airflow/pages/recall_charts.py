"""Draw the charts of the nightly recall checks, one place for each check, oldest on the left."""

from collections.abc import Callable, Sequence
from datetime import UTC

from jobs.charts import OTHER_COLOR, Chart, Place, Series, Unit, draw_lines
from jobs.database.recall_checks import RecallCheck, StoredCheck
from jobs.run_titles import format_title_time

MAX_CATEGORIES = 6
"""Maximum number of categories on a chart, those with the lowest recall in the latest check."""


def draw_recall(checks: Sequence[StoredCheck]) -> list[Chart]:
    """Draw the neighbors that searches missed, and how long searches took. ``checks`` are oldest first."""
    if not checks:
        return []
    latest = [one.check for one in checks if one.checked_at == checks[-1].checked_at]
    worst = sorted((check.recall, check.category) for check in latest if check.category is not None)
    names = [None, *(category for _, category in worst[:MAX_CATEGORIES])]
    missed = _draw(
        "Neighbors that searches miss", checks, names, lambda check: 1 - check.recall, "share", with_bound=True
    )
    return [missed, _draw("95th percentile of searches, ms", checks, names, lambda check: check.p95_milliseconds)]


def _draw(
    title: str,
    checks: Sequence[StoredCheck],
    names: Sequence[str | None],
    read: Callable[[RecallCheck], float],
    unit: Unit = "number",
    *,
    with_bound: bool = False,
) -> Chart:
    times = sorted({one.checked_at for one in checks})
    values = {(one.checked_at, one.check.category): read(one.check) for one in checks}
    bounds = {one.checked_at: 1 - one.check.bound for one in checks}
    series = [
        Series(name or "all images", [values.get((time, name)) for time in times], number)
        for number, name in enumerate(names)
    ]
    if with_bound:
        series.append(Series("allowed", [bounds[time] for time in times], OTHER_COLOR))
    places = [Place(format_title_time(time), time.astimezone(UTC).strftime("%-d %b")) for time in times]
    return draw_lines(title, places, series, unit)
