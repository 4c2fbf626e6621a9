"""Bars with speed and time left, in the width of the terminal."""

import io

from rich.console import Console

from jobs.commands.progress_bar import Bar, draw_bars
from jobs.database.job_progress import JobProgress

TAGGING = JobProgress("tagging", 4120, 10_000, "images", images_per_second=83.4, seconds_left=70.5)


def draw(width: int, *bars: Bar) -> list[str]:
    """Return the lines of the bars."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(draw_bars(bars, width))
    return capture.get().splitlines()


def test_a_bar_shows_speed_and_time_left() -> None:
    (line,) = draw(120, Bar("tag_shard[0]", TAGGING, 49.0))
    assert line.startswith(" tag_shard[0] ━")
    for words in ("tagging", "4,120 of 10,000 images", "83 images/s", "70 s left"):
        assert words in line


def test_a_narrow_terminal_leaves_out_the_count_but_not_the_time_left() -> None:
    (line,) = draw(80, Bar("tag_shard[0]", TAGGING, 49.0))
    assert "4,120" not in line
    assert "83 images/s" in line
    assert "70 s left" in line


def test_without_a_time_left_the_time_so_far_is_shown() -> None:
    first, second = draw(100, Bar("discover", None, 3.2), Bar("publish", JobProgress("building the index"), 12.0))
    assert first.split() == ["discover", "━" * first.count("━"), "running", "3", "s"]
    assert second.endswith("12 s")
