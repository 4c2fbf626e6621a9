"""Store the progress of a job in a real database."""

import logging
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

import jobs.progress
from jobs.database.engine import create_database_engine
from jobs.database.job_progress import JobProgress, RunningJob, list_running_jobs, upsert_job_progress
from jobs.local.ports import LOOPBACK, find_free_port
from jobs.progress import Progress, open_progress

RUN = "model_retrain/1"
TASK = "classifier.train"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept every report, and write it immediately."""
    monkeypatch.setattr(jobs.progress, "MIN_REPORT_SECONDS", 0.0)
    monkeypatch.setattr(jobs.progress, "WRITE_SECONDS", 0.01)


def list_jobs(engine: Engine) -> tuple[RunningJob, ...]:
    with engine.connect() as connection:
        return list_running_jobs(connection)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_progress_is_visible_while_a_job_runs(engine: Engine) -> None:
    with open_progress(engine, RUN, TASK) as progress:
        progress.report("training", 10, 40, epoch=1, epochs=4, loss=0.5)
        wait_until(lambda: bool(list_jobs(engine)))
        progress.report("training", 30, 40, epoch=3, epochs=4, loss=0.25)
        wait_until(lambda: list_jobs(engine)[0].progress.done == 30)
        (job,) = list_jobs(engine)
        assert (job.run_id, job.task) == (RUN, TASK)
        assert job.progress == progress.latest
        assert (job.progress.epoch, job.progress.epochs, job.progress.loss) == (3, 4, 0.25)
        assert job.seconds_running >= 0
    assert list_jobs(engine) == ()


def test_the_progress_of_a_failed_job_is_deleted(engine: Engine) -> None:
    def fail() -> None:
        with open_progress(engine, RUN, TASK) as progress:
            progress.report("training")
            wait_until(lambda: bool(list_jobs(engine)))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert list_jobs(engine) == ()


def test_speed_and_time_left_are_computed_per_stage() -> None:
    progress = Progress(iter([100.0, 104.0, 110.0, 112.0]).__next__)
    progress.report("decoding", 0, 1000)
    assert progress.latest is not None
    assert (progress.latest.images_per_second, progress.latest.seconds_left) == (None, None)
    progress.report("decoding", 400, 1000)
    assert (progress.latest.images_per_second, progress.latest.seconds_left) == (100, 6)
    # A resumed stage starts at its last position. The speed counts only new work.
    progress.report("tagging", 600, 1000, "blocks")
    progress.report("tagging", 700, 1000, "blocks")
    assert (progress.latest.images_per_second, progress.latest.seconds_left) == (None, 6)


def test_a_restarted_stage_is_measured_again() -> None:
    progress = Progress(iter([0.0, 1000.0, 1001.0]).__next__)
    progress.report("checking", 500, 1000)
    progress.report("checking", 0, 1000)
    progress.report("checking", 10, 1000)
    assert progress.latest is not None
    assert progress.latest.images_per_second == 10


def test_frequent_reports_are_dropped_except_for_a_new_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.progress, "MIN_REPORT_SECONDS", 3600)
    progress = Progress()
    for done in range(5):
        progress.report("decoding", done, 5)
    assert progress.latest is not None
    assert progress.latest.done == 0
    progress.report("training")
    assert progress.latest.stage == "training"


def test_tracked_batches_are_counted_in_images() -> None:
    progress, seen = Progress(), []
    for batch in progress.track("scoring", ["ab", "cd", "e"], 5, size=2):
        assert progress.latest is not None
        seen.append((batch, progress.latest.done))
    assert seen == [("ab", 0), ("cd", 2), ("e", 4)]
    assert progress.latest is not None
    assert (progress.latest.done, progress.latest.total) == (5, 5)


def test_progress_is_logged(engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(jobs.progress, "LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    with open_progress(engine, RUN, TASK) as progress:
        progress.report("training", 10, 40)
        wait_until(lambda: bool(caplog.messages))
    assert caplog.messages == [f"{TASK}: training, 10 of 40 images"]


def test_an_unavailable_database_does_not_end_the_job(caplog: pytest.LogCaptureFixture) -> None:
    engine = create_database_engine(f"postgresql://somebody:secret@{LOOPBACK}:{find_free_port()}/catalog")
    with open_progress(engine, RUN, TASK) as progress:
        for done in range(3):
            progress.report("training", done)
            wait_until(lambda: bool(caplog.messages))
            time.sleep(0.05)
    (message,) = caplog.messages
    assert "the job continues" in message
    assert "refused" in message
    assert "secret" not in message


def test_a_hanging_database_does_not_delay_the_job(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.progress, "CLOSE_SECONDS", 0.1)
    with engine.begin() as blocker:
        blocker.execute(text("LOCK TABLE catalog.job_progress IN ACCESS EXCLUSIVE MODE"))
        with open_progress(engine, RUN, TASK) as progress:
            progress.report("training")
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: blocker.execute(waiting).scalar_one() > 0)
    wait_until(lambda: list_jobs(engine) == ())


def test_a_job_without_a_run_stores_nothing(engine: Engine) -> None:
    with open_progress(engine, None, TASK) as progress:
        progress.report("training")
        assert list_jobs(engine) == ()


def test_the_progress_of_a_killed_job_expires(engine: Engine) -> None:
    def age(hours: float) -> None:
        with engine.begin() as connection:
            statement = text("UPDATE catalog.job_progress SET updated_at = updated_at - make_interval(secs => :secs)")
            connection.execute(statement, {"secs": 3600 * hours})

    with engine.begin() as connection:
        upsert_job_progress(connection, RUN, TASK, JobProgress("training"), 5)
    age(0.5)
    (job,) = list_jobs(engine)
    assert job.seconds_without_news == pytest.approx(1800, abs=60)
    age(1)
    assert list_jobs(engine) == ()
    age(24)
    with open_progress(engine, "catalog_ingest/1", "publish") as progress:
        progress.report("renewing product tags")
        wait_until(lambda: bool(list_jobs(engine)))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM catalog.job_progress")).scalar_one() == 0
