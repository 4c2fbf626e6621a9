"""Draw charts as SVG without scripts or inline styles, so they work under a strict Content-Security-Policy.

A `Chart` renders itself in a Jinja template. Its marks have the classes ``series-0``, ``series-1`` and so on, and the
style sheet of the page maps these to colors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment

Unit = Literal["number", "share"]

WIDTH, HEIGHT = 640.0, 160.0
BAR_SHARE, MAX_BAR_WIDTH = 0.75, 56.0
"""The width of a bar as a share of its slot, and its maximum, so a chart with few bars does not look like a wall."""
POINT_RADIUS = 3.5
TEMPLATE = """
<figure class="chart">
  <figcaption>{{ chart.title }}</figcaption>
  <svg viewBox="{{ "%.0f %.0f %.0f %.0f"|format(*chart.view_box) }}" role="img" aria-label="{{ chart.title }}">
    {% for y, label in chart.y_ticks %}
    <line class="grid" x1="0" x2="{{ chart.width }}" y1="{{ y }}" y2="{{ y }}"/>
    <text x="-6" y="{{ y + 5 }}" text-anchor="end">{{ label }}</text>
    {% endfor %}
    {% for x, label in chart.x_ticks %}
    <text x="{{ x }}" y="{{ chart.height + 18 }}" text-anchor="middle">{{ label }}</text>
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
  </svg>
  {% if chart.legend %}
  <ul class="legend">
    {% for name in chart.legend %}<li><i class="swatch series-{{ loop.index0 }}"></i>{{ name }}</li>{% endfor %}
  </ul>
  {% endif %}
</figure>
"""


@dataclass(frozen=True)
class Series:
    """A named series of values, one for each place on the x axis. None leaves the place empty."""

    name: str
    values: Sequence[float | None]


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
    """Everything that a chart shows, in SVG coordinates. A tick is a position with a label."""

    title: str
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...] = ()
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    legend: tuple[str, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def view_box(self) -> tuple[float, float, float, float]:
        """The view box of the SVG: the chart with space for its labels."""
        return -60, -10, self.width + 72, self.height + (36 if self.x_ticks else 20)

    def __html__(self) -> str:
        """Render the chart. Jinja and MarkupSafe call this where they would otherwise escape a string."""
        return _TEMPLATE.render(chart=self)


_TEMPLATE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)


def draw_stacked_bars(
    title: str, places: Sequence[str], series: Sequence[Series], unit: Unit = "number", highest: float | None = None
) -> Chart:
    """Draw one bar for each place, with one part for each series. ``highest`` is the value at the top of the axis."""
    totals = [sum(one.values[place] or 0 for one in series) for place in range(len(places))]
    top = highest or max(totals, default=0) or 1
    step = WIDTH / max(1, len(places))
    width = min(step * BAR_SHARE, MAX_BAR_WIDTH)
    bars = []
    for place, name in enumerate(places):
        y = HEIGHT
        for number, one in enumerate(series):
            value = one.values[place] or 0
            if value > 0:
                height = HEIGHT * value / top
                y -= height
                text = f"{name}: {format_value(value, unit)} {one.name}"
                bars.append(Bar(number, step * (place + 0.5) - width / 2, y, width, height, text))
    return Chart(title, _make_y_ticks(top, unit), bars=tuple(bars), legend=tuple(one.name for one in series))


def draw_lines(
    title: str, places: Sequence[str], series: Sequence[Series], unit: Unit = "number", highest: float | None = None
) -> Chart:
    """Draw one line for each series, on an axis from zero to ``highest``. A single line gets no legend."""
    known = [value for one in series for value in one.values if value is not None]
    top = highest or max(known, default=0) or 1
    lines, dots = [], []
    for number, one in enumerate(series):
        points = [
            Dot(
                number,
                WIDTH * (place + 0.5) / len(places),
                HEIGHT * (1 - value / top),
                POINT_RADIUS,
                f"{name}: {format_value(value, unit)}",
            )
            for place, (name, value) in enumerate(zip(places, one.values, strict=True))
            if value is not None
        ]
        lines.append(Line(f"series-{number}", tuple((dot.x, dot.y) for dot in points)))
        dots += points
    legend = tuple(one.name for one in series) if len(series) > 1 else ()
    return Chart(title, _make_y_ticks(top, unit), lines=tuple(lines), dots=tuple(dots), legend=legend)


def format_value(value: float, unit: Unit) -> str:
    """Format a share as a percentage, or a number with more decimals the smaller it is."""
    if unit == "share":
        return f"{value:.0%}"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _make_y_ticks(highest: float, unit: Unit) -> tuple[tuple[float, str], ...]:
    return tuple((HEIGHT * (1 - share), format_value(highest * share, unit)) for share in (1, 0.5, 0))
