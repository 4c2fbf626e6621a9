"""Reports and tables on a terminal."""

import io

from rich.console import Console

from jobs.commands.tables import format_value, make_table
from jobs.commands.terminal import Listing

RUNS = Listing(
    ("state", "images", "run"),
    [("succeeded", "1,234", "catalog_ingest/scheduled__2026-01-31T02:00:00+00:00"), ("failed", "7", "x")],
)


def draw(listing: Listing, width: int) -> list[str]:
    """Return the lines of a table, without spaces at their ends."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(make_table(listing, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_wide_terminal_shows_a_table_on_one_line_for_each_row() -> None:
    assert draw(RUNS, 80) == [
        "state      images  run",
        "succeeded   1,234  catalog_ingest/scheduled__2026-01-31T02:00:00+00:00",
        "failed          7  x",
    ]


def test_a_narrow_terminal_wraps_the_last_column_and_a_narrower_one_drops_it() -> None:
    wrapped = draw(RUNS, 50)
    assert wrapped[1].startswith("succeeded   1,234  catalog_ingest/")
    assert "".join(line[19:] for line in wrapped[1:3]) == RUNS.rows[0][-1]
    assert draw(RUNS, 30) == ["state      images", "succeeded   1,234", "failed          7"]


def test_without_a_head_the_first_column_names_the_rows() -> None:
    assert draw(Listing((), [("images", "6"), ("waiting", "none")]), 40) == ["images   6", "waiting  none"]


def test_control_characters_of_a_name_do_nothing() -> None:
    assert draw(Listing((), [("name", "red\x1b[2J")]), 40) == ["name  red\N{REPLACEMENT CHARACTER}[2J"]


def test_values_have_the_unit_of_their_field() -> None:
    shown = {
        ("read_seconds", 93.0): "2 min",
        ("peak_memory_bytes", 160_000_000): "160 MB",
        ("share", 0.25): "25 %",
        ("accuracy", 0.97916): "0.979",
        ("entries", 12345): "12,345",
        ("is_live", True): "yes",
    }
    assert {pair: format_value(*pair) for pair in shown} == shown


def test_nested_records_are_short() -> None:
    assert format_value("discovered", {"new": 6, "changed": 0}) == "new 6"
    assert format_value("waiting", {"decode": {"seconds": 3.0, "share": 0.56}}) == "decode 3.0 s, 56 %"
    assert (
        format_value("index", {"loaded_first": 3, "sentence": "no vectors were written"}) == "no vectors were written"
    )
    assert format_value("shards", list(range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 2 more"
    assert format_value("created", []) == ""
    promotion = {"kind": "classifier", "model_version_id": 3, "replaced_version_id": None, "is_live": False}
    assert format_value("promotions", [promotion, promotion]) == "\n".join(["kind classifier, version 3, live no"] * 2)
