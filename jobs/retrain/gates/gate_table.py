"""Tabulate the gates of a candidate for people, for the model page and the evaluation page alike."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import Environment

from jobs.database.evaluations import GateDecision, Verdict
from jobs.units import (
    format_days,
    format_figure,
    format_lower_bound,
    format_megabytes,
    format_percent,
    format_seconds,
    format_speed,
    format_words,
)

VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "skipped")
TEMPLATE = """
<p class="verdicts">{{ table.summary }}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Gates">
<table class="gates cards">
  <thead><tr><th>gate</th><th>verdict</th><th class="figure">value</th><th class="figure">bound</th><th>explanation</th></tr></thead>
  <tbody>
  {% for row in table.rows %}
  <tr class="{{ row.verdict }}"><td class="title">{{ row.name }}</td><td data-label="verdict"><span class="mark {{ row.tone }}">{{
    row.verdict }}</span></td><td class="figure" data-label="value">{{ row.value }}</td><td class="figure" data-label="bound">{{
    row.bound }}</td><td class="why">{{ row.sentence }}</td></tr>
  {% endfor %}
  </tbody>
</table>
</div>
"""  # noqa: E501


@dataclass(frozen=True)
class GateRow:
    """A gate with its value and bound in the same unit."""

    name: str
    verdict: Verdict
    value: str
    bound: str
    sentence: str

    @property
    def tone(self) -> str:
        """Return the CSS class of the verdict."""
        return {"passed": "good", "failed": "bad", "skipped": ""}[self.verdict]


@dataclass(frozen=True)
class GateTable:
    """The gates of one evaluation."""

    rows: tuple[GateRow, ...]

    @property
    def summary(self) -> str:
        """Return the number of gates by verdict: ``16 passed, 2 skipped``."""
        counts = Counter(row.verdict for row in self.rows)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])

    def __html__(self) -> str:
        """Render the table. Jinja and MarkupSafe call this where they would otherwise escape a string."""
        return _TEMPLATE.render(table=self)


_TEMPLATE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)


def tabulate_gates(decisions: Sequence[GateDecision]) -> GateTable:
    """Format each decision. A missing value is a dash."""
    return GateTable(
        tuple(
            GateRow(
                format_words(one.gate),
                one.verdict,
                _format(one.gate, one.value),
                _format(one.gate, one.bound),
                one.sentence,
            )
            for one in decisions
        )
    )


def _format(gate: str, value: float | None) -> str:
    return "-" if value is None else UNITS.get(gate, format_figure)(value)


def _format_check(is_true: float) -> str:
    return "yes" if is_true else "no"


SIGNED = partial(format_lower_bound, sign=True)
UNITS: dict[str, Callable[[float], str]] = {
    "snapshot_age": format_days,
    "artifact_checksum": _format_check,
    "labels_and_preprocessing": _format_check,
    "preprocessing": _format_check,
    "accuracy": format_lower_bound,
    "top_3_accuracy": format_lower_bound,
    "category_recall": format_percent,
    "calibration": format_percent,
    "not_worse_than_champion": SIGNED,
    "blast_radius": format_percent,
    "recall_at_1": SIGNED,
    "recall_at_5": SIGNED,
    "recall_at_10": SIGNED,
    "latency": format_seconds,
    "throughput": format_speed,
    "failures": format_percent,
    "memory": format_megabytes,
}
"""The unit of each gate's value and bound. The others are numbers."""
