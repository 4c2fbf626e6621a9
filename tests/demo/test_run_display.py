import io
import re

import pytest
from rich.console import Console

from demo.run_display import LiveDisplay, PlainDisplay, RunDisplay, RunView, TaskView, choose_display
from jobs.database.job_progress import JobProgress

TRAINING = JobProgress("training", 1240, 5000, "images", 2, 8, 0.5116, 36.4, 104.2)
LOADING = JobProgress("loading the models")
VIEWS = (
    RunView((TaskView("snapshot", "running", 1.0), TaskView("classifier.train", None, None))),
    RunView((TaskView("snapshot", "success", 4.4), TaskView("classifier.train", "queued", None))),
    RunView(
        (TaskView("snapshot", "success", 4.4), TaskView("classifier.train", "running", 31.0, TRAINING)),
        (TaskView("catalog_retag tag_shard[0]", "running", 9.0, LOADING),),
    ),
    RunView((TaskView("snapshot", "success", 4.4), TaskView("classifier.train", "failed", 62.0, TRAINING))),
)


def show_all(display: RunDisplay) -> None:
    with display:
        for view in VIEWS:
            # Twice, because an unchanged view must not be repeated.
            display.show(view)
            display.show(view)


def write_lines(progress_seconds: float) -> list[str]:
    lines: list[str] = []
    show_all(PlainDisplay(lines.append, progress_seconds))
    return lines


def open_console(width: int = 120) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width), file


def strip_codes(output: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def test_plain_lines_report_changes_once_and_progress_at_intervals() -> None:
    assert write_lines(progress_seconds=0) == [
        "   snapshot: running",
        "   snapshot: success, 4 s",
        "   classifier.train: running",
        f"   classifier.train: {TRAINING.describe()}",
        "   catalog_retag tag_shard[0]: loading the models",
        "   classifier.train: failed, 62 s",
    ]
    assert write_lines(progress_seconds=3600) == [
        "   snapshot: running",
        "   snapshot: success, 4 s",
        "   classifier.train: running",
        "   classifier.train: failed, 62 s",
    ]


def test_terminal_shows_a_line_for_each_running_task() -> None:
    console, file = open_console()
    show_all(LiveDisplay(console))
    words = strip_codes(file.getvalue())
    for part in ("training", "36 images/s", "epoch 2/8", "loss 0.512", "104 s left", "tag_shard[0]", "━"):
        assert part in words
    assert words.count("snapshot: success, 4 s") == 1
    assert words.count("classifier.train: failed, 62 s") == 1
    assert "waiting for classifier.train" in words


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_task_takes_one_line_of_any_terminal(width: int) -> None:
    console, file = open_console(width)
    long = JobProgress("ranking blocks by their noise in int8", 3, 12, "blocks", seconds_left=90.0)
    with LiveDisplay(console) as display:
        display.show(RunView((TaskView("classifier.optimize", "running", 1.0, long), VIEWS[2].tasks[1])))
        first, second = (strip_codes(line) for line in file.getvalue().rstrip().splitlines())
    assert "classifier.optimize" in first
    assert "classifier.train" in second
    assert width < 80 or all(words in second for words in ("36 images/s", "epoch 2/8", "loss 0.512", "104 s left"))


def test_no_color_disables_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, file = open_console()
    show_all(LiveDisplay(console))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", file.getvalue())


def test_output_to_a_file_is_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = choose_display(print)
    assert isinstance(display, PlainDisplay)
    show_all(display)
    assert "\x1b" not in capsys.readouterr().out
