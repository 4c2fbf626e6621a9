"""Whose progress is listed, and how it reads."""

import math

import pytest
from sqlalchemy import Engine

from jobs.database.job_progress import JobProgress, list_running_jobs, upsert_job_progress


def test_a_run_has_the_jobs_of_its_parts(engine: Engine) -> None:
    with engine.begin() as connection:
        for seconds, run in ((3, "retag/1"), (2, "retag/1/top-up-1"), (1, "retag/10"), (4, "ingest/1")):
            upsert_job_progress(connection, run, "tag_shard[0]", JobProgress("tagging", loss=math.nan), seconds)
        assert [job.run_id for job in list_running_jobs(connection, "retag/1")] == ["retag/1", "retag/1/top-up-1"]
        assert [job.run_id for job in list_running_jobs(connection)] == [
            "ingest/1",
            "retag/1",
            "retag/1/top-up-1",
            "retag/10",
        ]


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (JobProgress("loading the models"), "loading the models"),
        (JobProgress("listing the bucket", 12_000, unit="objects"), "listing the bucket, 12,000 objects"),
        (JobProgress("ranking", 3, 12, "blocks", seconds_left=9.4), "ranking, 3 of 12 blocks, 9 s left"),
        (
            JobProgress("training", 1240, 5000, "images", 2, 8, 0.5116, 36.4, 104.2),
            "training, epoch 2 of 8, 1,240 of 5,000 images, 36 images/s, loss 0.512, 104 s left",
        ),
        (
            JobProgress("training", 0, 5000, "images", 1, 8, math.nan, 0.46, 10_800.0),
            "training, epoch 1 of 8, 0 of 5,000 images, 0.5 images/s, loss nan, 3 h left",
        ),
        (JobProgress("tagging", 1, 2, seconds_left=150.0), "tagging, 1 of 2 images, 2 min left"),
    ],
)
def test_progress_reads_as_one_line(progress: JobProgress, words: str) -> None:
    assert progress.describe() == words
