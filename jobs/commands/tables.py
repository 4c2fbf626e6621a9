"""Show records on a terminal: the fields of a report, and tables that fit into its width."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.commands.terminal import Listing, make_harmless
from jobs.units import format_duration, format_number, format_share, format_size, format_words

_FIGURE = re.compile(r"-|[\d,.]+( (s|min|h|days|%|kB|MB|GB))?")
_GAP = 2
_MIN_LAST_WIDTH = 24
MAX_ITEMS = 12
"""Maximum number of items of a list to print."""
LEFT_OUT = frozenset(
    {"read_seconds", "decode_seconds", "predict_seconds", "write_seconds", "approval_text", "decisions"}
)
"""Fields that are only for programs, or that the log has shown."""
LABELS = {
    "entries": "images",
    "entries_by_reason": "images by reason",
    "seconds": "duration",
    "estimated_seconds": "estimated duration",
    "model_version_id": "version",
}
STATE_STYLES = {
    "succeeded": "green",
    "passed": "green",
    "ok": "green",
    "warning": "yellow",
    "running": "cyan",
    "failed": "red",
    "skipped": "dim",
    "not running": "dim",
}


def print_fields(record: Any) -> None:
    """Print each field of a record on a line. Fields without a value are left out."""
    if not isinstance(record, Mapping):
        Console().print(Text(make_harmless(format_value("", record))))
        return
    rows = [
        (_format_label(name), format_value(name, value))
        for name, value in record.items()
        if name not in LEFT_OUT and value is not None and value not in ("", [], (), {})
    ]
    if rows:
        print_listing(Listing((), rows))


def print_listing(listing: Listing) -> None:
    """Print a table."""
    console = Console()
    console.print(make_table(listing, console.width))


def print_titled(sections: Mapping[str, Listing], end: str) -> None:
    """Print tables below their titles, and a last line."""
    console = Console()
    for title, listing in sections.items():
        console.print(Text(title, style="bold"))
        console.print(Padding(make_table(listing, console.width - 2), (0, 0, 1, 2)))
    console.print(Text(make_harmless(end)))


def make_table(listing: Listing, width: int) -> Table:
    """Return a table of aligned columns. Only the last one is wrapped, and left out if there is no room for it."""
    head = listing.head
    columns = list(zip(*([head] if head else []), *listing.rows, strict=True))
    while head and len(columns) > 1 and not _has_room_for_last(columns, width):
        columns.pop()
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim", show_header=bool(head))
    for place, column in enumerate(columns):
        are_figures = bool(head) and all(_FIGURE.fullmatch(cell) for cell in column[1:])
        table.add_column(
            head[place] if head else "",
            justify="right" if are_figures else "left",
            style="dim" if not head and place == 0 else "",
            no_wrap=place < len(columns) - 1,
            overflow="fold",
        )
    for row in listing.rows:
        table.add_row(*map(style_text, row[: len(columns)]))
    return table


def _has_room_for_last(columns: Sequence[Sequence[str]], width: int) -> bool:
    widths = [max(map(len, column)) for column in columns]
    return width - sum(widths[:-1]) - _GAP * (len(widths) - 1) >= min(widths[-1], _MIN_LAST_WIDTH)


def style_text(words: str) -> Text:
    """Return a text without control characters, in the color of its state if it is one."""
    return Text(make_harmless(words), style=STATE_STYLES.get(words, ""))


def format_value(name: str, value: Any) -> str:
    """Format a value of a report. The name of its field tells its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _format_number(name, value)
    if isinstance(value, Mapping):
        return _format_mapping(name, value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _format_items(name, value)
    return str(value)


def _format_label(name: str) -> str:
    if name in LABELS:
        return LABELS[name]
    for suffix in ("_id", "_uri", "_seconds", "_bytes"):
        name = name.removesuffix(suffix)
    return format_words(name.removeprefix("is_"))


def _format_number(name: str, value: float) -> str:
    if name.endswith("seconds"):
        return format_duration(value)
    if name.endswith("bytes"):
        return format_size(int(value))
    if name.endswith("share"):
        return format_share(value)
    if isinstance(value, float) and abs(value) < 10:
        return f"{value:.3g}"
    return format_number(value)


def _format_mapping(name: str, record: Mapping[str, Any]) -> str:
    """Format a nested record. If it explains itself in a sentence, that is enough."""
    if sentence := record.get("sentence"):
        return f"{record['verdict']}: {sentence}" if "verdict" in record else str(sentence)
    are_records = any(isinstance(value, Mapping) for value in record.values())
    parts = [
        f"{_format_label(key)} {format_value(key, value)}".removeprefix("duration ").removeprefix("share ")
        for key, value in record.items()
        if key not in LEFT_OUT and (value is False or (value is not None and value not in ("", [], (), {}, 0)))
    ]
    return ("\n" if are_records else ", ").join(parts) or "none"


def _format_items(name: str, items: Sequence[Any]) -> str:
    are_records = any(isinstance(item, Mapping) for item in items)
    limit = len(items) if are_records else MAX_ITEMS
    shown = [format_value(name, item) for item in items[:limit]]
    more = [f"{len(items) - limit} more"] if len(items) > limit else []
    return ("\n" if are_records else ", ").join([*shown, *more])
