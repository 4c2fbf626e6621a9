"""Draw charts as SVG without scripts or inline styles, so they work under a strict Content-Security-Policy.

A `Chart` renders itself in a Jinja template. Its marks have the classes ``series-0``, ``series-1`` and so on, and the
style sheet of the page maps these to colors, with the variables ``--series-0``, ``--series-1`` and so on.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment

Unit = Literal["number", "share"]

WIDTH, HEIGHT = 640.0, 160.0
BAR_SHARE, MAX_BAR_WIDTH = 0.75, 56.0
"""The width of a bar as a share of its slot, and its maximum, so a chart with few bars does not look like a wall."""
MAX_SLOT_WIDTH = 128.0
"""A chart of a few places starts on the left, like one that will grow, instead of stretching over the whole width."""
MAX_LABELED = 8
"""Up to this many places, values are written next to the marks."""
MAX_TICKS = 5
POINT_RADIUS, LARGE_POINT_RADIUS = 3.5, 6.0
OTHER_COLOR = 8
"""The color of everything that has no color of its own, a gray."""
COLORS = (*range(OTHER_COLOR), *range(OTHER_COLOR + 1, 17))
"""The colors of categories, by their numbers in the style sheet. Further categories use them again."""
TEMPLATE = """
<figure class="chart">
  <figcaption>{{ chart.title }}</figcaption>
  <svg viewBox="{{ "%.0f %.0f %.0f %.0f"|format(*chart.view_box) }}" role="img" aria-label="{{ chart.title }}">
    {% for y, label in chart.y_ticks %}
    <line class="grid" x1="0" x2="{{ chart.width }}" y1="{{ y }}" y2="{{ y }}"/>
    <text x="-6" y="{{ y + 5 }}" text-anchor="end">{{ label }}</text>
    {% endfor %}
    {% for x, label in chart.x_ticks %}
    <text x="{{ "%.1f"|format(x) }}" y="{{ chart.height + 28 }}" text-anchor="middle">{{ label }}</text>
    {% endfor %}
    {% for bar in chart.bars %}
    <rect class="series-{{ bar.series }}" x="{{ "%.1f"|format(bar.x) }}" y="{{ "%.1f"|format(bar.y) }}" width="{{
      "%.1f"|format(bar.width) }}" height="{{ "%.1f"|format(bar.height) }}"><title>{{ bar.title }}</title></rect>
    {% endfor %}
    {% for line in chart.lines %}
    <polyline class="{{ line.css_class }}" points="{% for x, y in line.points %}{{
      "%.1f,%.1f "|format(x, y) }}{% endfor %}"/>
    {% endfor %}
    {% for dot in chart.dots %}
    <circle class="series-{{ dot.series }}" cx="{{ "%.1f"|format(dot.x) }}" cy="{{ "%.1f"|format(dot.y) }}" r="{{
      "%.1f"|format(dot.radius) }}"><title>{{ dot.title }}</title></circle>
    {% endfor %}
    {% for x, y, label in chart.labels %}
    <text class="label" x="{{ "%.1f"|format(x) }}" y="{{ "%.1f"|format(y) }}" text-anchor="middle">{{ label }}</text>
    {% endfor %}
  </svg>
  {% if chart.legend %}
  <ul class="legend">
    {% for name, color in chart.legend %}<li><i class="swatch series-{{ color }}"></i>{{ name }}</li>{% endfor %}
  </ul>
  {% endif %}
</figure>
"""


def choose_colors(categories: Iterable[str]) -> dict[str, int]:
    """Return the number of the color of each category, the same on all charts and pages.

    It follows from a hash of the name, so a new category changes few other colors. If the color is taken, the category
    gets the next free one. Pass all categories of the catalog, not those of a chart.
    """
    colors: dict[str, int] = {}
    free = set(COLORS)
    for category in sorted(set(categories)):
        start = hashlib.sha256(category.encode()).digest()[0] % len(COLORS)
        free = free or set(COLORS)
        colors[category] = next(color for color in COLORS[start:] + COLORS[:start] if color in free)
        free.remove(colors[category])
    return colors


@dataclass(frozen=True)
class Place:
    """A place on the x axis: its name when the mouse is over it, and the short text below the axis."""

    name: str
    tick: str


@dataclass(frozen=True)
class Series:
    """A named series of values, one for each place on the x axis. None leaves the place empty."""

    name: str
    values: Sequence[float | None]
    color: int = 0


@dataclass(frozen=True)
class Bar:
    """One rectangle of a stacked bar. The y axis points down, as in SVG."""

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Line:
    """A line through points."""

    css_class: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Dot:
    """A data point, with the text to show when the mouse is over it."""

    series: int
    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Chart:
    """Everything that a chart shows, in SVG coordinates. A tick is a position with a label.

    ``labels`` are texts with their positions. ``legend`` contains names with the numbers of their colors.
    """

    title: str
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...] = ()
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    labels: tuple[tuple[float, float, str], ...] = ()
    legend: tuple[tuple[str, int], ...] = ()
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def view_box(self) -> tuple[float, float, float, float]:
        """The view box of the SVG: the chart with space for its labels."""
        return -68, -24, self.width + 84, self.height + (60 if self.x_ticks else 34)

    def __html__(self) -> str:
        """Render the chart. Jinja and MarkupSafe call this where they would otherwise escape a string."""
        return _TEMPLATE.render(chart=self)


_TEMPLATE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)


def draw_stacked_bars(
    title: str, places: Sequence[Place], series: Sequence[Series], unit: Unit = "number", highest: float | None = None
) -> Chart:
    """Draw one bar for each place, with one part for each series. ``highest`` is the value at the top of the axis."""
    totals = [sum(one.values[place] or 0 for one in series) for place in range(len(places))]
    top = highest or max(totals, default=0) or 1
    centers = _place_centers(len(places))
    width = min(_slot_width(len(places)) * BAR_SHARE, MAX_BAR_WIDTH)
    bars = []
    for number, (place, center) in enumerate(zip(places, centers, strict=True)):
        y = HEIGHT
        for one in series:
            value = one.values[number] or 0
            if value > 0:
                height = HEIGHT * value / top
                y -= height
                text = f"{place.name}: {format_value(value, unit)} {one.name}"
                bars.append(Bar(one.color, center - width / 2, y, width, height, text))
    heights = [HEIGHT * (1 - total / top) for total in totals]
    return Chart(
        title,
        _make_y_ticks(top, unit),
        _make_x_ticks(places, centers),
        bars=tuple(bars),
        labels=_label(centers, heights, totals, unit) if unit == "number" else (),
        legend=tuple((one.name, one.color) for one in series),
    )


def draw_lines(
    title: str, places: Sequence[Place], series: Sequence[Series], unit: Unit = "number", highest: float | None = None
) -> Chart:
    """Draw one line for each series, on an axis from zero to ``highest``. A single line gets no legend."""
    known = [value for one in series for value in one.values if value is not None]
    top = highest or max(known, default=0) or 1
    centers = _place_centers(len(places))
    radius = LARGE_POINT_RADIUS if len(places) <= MAX_LABELED else POINT_RADIUS
    lines: list[Line] = []
    dots: list[Dot] = []
    for one in series:
        points = [
            Dot(
                one.color,
                center,
                HEIGHT * (1 - value / top),
                radius,
                f"{place.name}: {format_value(value, unit)}",
            )
            for place, center, value in zip(places, centers, one.values, strict=True)
            if value is not None
        ]
        lines.append(Line(f"series-{one.color}", tuple((dot.x, dot.y) for dot in points)))
        dots += points
    is_alone = len(series) == 1
    return Chart(
        title,
        _make_y_ticks(top, unit),
        _make_x_ticks(places, centers),
        lines=tuple(lines),
        dots=tuple(dots),
        labels=_label([dot.x for dot in dots], [dot.y - radius for dot in dots], known, unit) if is_alone else (),
        legend=() if is_alone else tuple((one.name, one.color) for one in series),
    )


def _slot_width(places: int) -> float:
    return min(WIDTH / max(1, places), MAX_SLOT_WIDTH)


def _place_centers(places: int) -> list[float]:
    return [_slot_width(places) * (place + 0.5) for place in range(places)]


def _label(
    centers: Sequence[float], heights: Sequence[float], values: Sequence[float], unit: Unit
) -> tuple[tuple[float, float, str], ...]:
    """Write values above their marks, unless there are many."""
    if len(values) > MAX_LABELED:
        return ()
    shown = zip(centers, heights, values, strict=True)
    return tuple((center, height - 5, format_value(value, unit)) for center, height, value in shown if value)


def _make_x_ticks(places: Sequence[Place], centers: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Write the texts of at most `MAX_TICKS` places evenly along the axis, and none of them twice in a row."""
    ticks: list[tuple[float, str]] = []
    for number in range(0, len(places), max(1, math.ceil(len(places) / MAX_TICKS))):
        if not ticks or ticks[-1][1] != places[number].tick:
            ticks.append((centers[number], places[number].tick))
    return tuple(ticks)


def format_value(value: float, unit: Unit) -> str:
    """Format a share as a percentage, or a number with more decimals the smaller it is."""
    if unit == "share":
        return f"{100 * value:.0f} %"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _make_y_ticks(highest: float, unit: Unit) -> tuple[tuple[float, str], ...]:
    return tuple((HEIGHT * (1 - share), format_value(highest * share, unit)) for share in (1, 0.5, 0))
