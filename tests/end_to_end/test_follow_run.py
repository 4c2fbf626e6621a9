"""Follow runs of a real Airflow."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

import jobs.progress
from demo import follow_run
from demo.airflow_client import DagRun
from demo.follow_run import RunFollower
from demo.run_display import PlainDisplay
from jobs.database.engine import create_database_engine
from jobs.errors import PermanentError, RetryableError
from jobs.progress import open_progress
from tests.end_to_end.live_stack import LiveStack, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

DAG_ID = "wait_for_a_word"


@pytest.fixture
def engine(stack: LiveStack) -> Iterator[Engine]:
    engine = create_database_engine(stack.environment["CATALOG_DATABASE_URL"])
    yield engine
    engine.dispose()


def say(folder: Path, word: str) -> None:
    """Write the word atomically."""
    (folder / "draft").write_text(word)
    (folder / "draft").rename(folder / "word")


def wait_until_running(stack: LiveStack, run: DagRun) -> None:
    wait_until(lambda: stack.read_states(run).get("listen") == "running")


def test_run_is_followed_to_its_end_by_two_commands(
    stack: LiveStack, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Follow a run with two commands. The second one attaches to the run of the first, and both show its progress."""
    monkeypatch.setattr(jobs.progress, "WRITE_SECONDS", 0.1)
    monkeypatch.setattr(follow_run, "choose_display", lambda write: PlainDisplay(write, progress_seconds=0))
    first: list[str] = []
    second: list[str] = []
    follower = RunFollower(stack.airflow, engine, stack.status.folder)
    threads = [
        threading.Thread(target=follower.run_dag, args=(DAG_ID, lambda: {"folder": str(tmp_path)}, lines.append))
        for lines in (first, second)
    ]
    threads[0].start()
    wait_until(lambda: stack.airflow.list_runs(DAG_ID, ("queued", "running")) != [])
    threads[1].start()
    (run,) = stack.airflow.list_runs(DAG_ID, ("queued", "running"))
    with open_progress(engine, f"{DAG_ID}/{run.run_id}", "listen") as progress:
        progress.report("listening", 3, 10, "words")
        wait_until(lambda: all("   listen: listening, 3 of 10 words" in lines for lines in (first, second)))
    say(tmp_path, "go")
    for thread in threads:
        thread.join(120)
    assert first[0] == "   listen: running"
    assert second[0] == f"   attached to the active run {run.run_id}"
    for lines in (first, second):
        assert lines[-1].startswith("   listen: success, ")
    assert stack.airflow.list_runs(DAG_ID, ("queued", "running")) == []


def test_stalled_and_failed_runs_are_reported_with_their_logs(stack: LiveStack, engine: Engine, tmp_path: Path) -> None:
    run = stack.start_dag(DAG_ID, {"folder": str(tmp_path)})
    wait_until_running(stack, run)
    lines: list[str] = []
    impatient = RunFollower(stack.airflow, engine, stack.status.folder, stall_seconds=3)
    with pytest.raises(RetryableError, match="no progress for 3 s") as stalled:
        impatient.follow(run, PlainDisplay(lines.append))
    assert "listen: running" in str(stalled.value)
    assert stack.airflow.read_run(DAG_ID, run.run_id).state == "running"
    say(tmp_path, "stop")
    patient = RunFollower(stack.airflow, engine, stack.status.folder)
    with pytest.raises(PermanentError, match="listen: the word was stop") as failed:
        patient.follow(run, PlainDisplay(lines.append))
    for error in (stalled, failed):
        log = str(error.value).partition("log: ")[2].splitlines()[0]
        assert f"dag_id={DAG_ID}" in log
        assert Path(log).is_file()


def test_ctrl_c_does_not_stop_the_run(
    stack: LiveStack, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(PlainDisplay):
        def show(self, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow_run, "choose_display", Interrupted)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        RunFollower(stack.airflow, engine, stack.status.folder).run_dag(
            DAG_ID, lambda: {"folder": str(tmp_path)}, lines.append
        )
    (run,) = stack.airflow.list_runs(DAG_ID, ("queued", "running"))
    assert stack.airflow.make_run_url(run) in lines[-1]
    say(tmp_path, "go")
    assert stack.airflow.wait_for_run(run, 120).state == "success"
