"""Real photos through a real Airflow: from a pretrained backbone to categories in SQL."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from jobs.database.engine import driver_url
from jobs.local.airflow_client import AirflowClient, DagRun
from jobs.local.airflow_services import AirflowOptions
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, start_stack, stop_stack
from jobs.settings import PROJECT_ROOT
from tests.local.conftest import make_stack_folder
from tests.local.stack_access import connect_s3, read_environment
from tests.shop import TinyModels

SHARED = PROJECT_ROOT.parent / "shared"
PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", SHARED / "data" / "clothing-small"))
WEIGHTS = Path(os.environ.get("CATALOG_PRETRAINED_WEIGHTS", SHARED / "weights" / "efficientnet-lite0"))
DAG_ID = "catalog_ingest"
TAGS = "SELECT object_key, category FROM catalog.current_image_tags"

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.xdist_group("airflow"),
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos: set CATALOG_REAL_PHOTOS to an ImageFolder"),
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no pretrained backbone: set CATALOG_PRETRAINED_WEIGHTS"),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[StackStatus]:
    with make_stack_folder() as folder:
        yield start_stack(folder, WantedPorts(), AirflowOptions())
        stop_stack(folder)


@pytest.fixture(scope="module")
def airflow(stack: StackStatus) -> Iterator[AirflowClient]:
    assert stack.airflow_url is not None
    assert stack.password is not None
    with AirflowClient(stack.airflow_url, stack.username, stack.password) as client:
        yield client


@pytest.fixture(scope="module")
def truth(stack: StackStatus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The category of each object: the validation photos under flat names that do not tell it."""
    photos = sorted((PHOTOS / "validation").glob("*/*.jpg"))
    truth = {photo.name: photo.parent.name for photo in photos}
    staged = tmp_path_factory.mktemp("photos")
    for photo in photos:
        shutil.copyfile(photo, staged / photo.name)
    with connect_s3(stack.folder) as client:
        for name in truth:
            client.upload_file(str(staged / name), "photos", name)
    return truth


def run_job(stack: StackStatus, *words: str) -> str:
    environment = os.environ | read_environment(stack.folder) | {"CATALOG_MODEL_CACHE": str(stack.folder / "models")}
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=PROJECT_ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def run_dag(airflow: AirflowClient, **parameters: object) -> DagRun:
    airflow.wait_for_dag(DAG_ID, timeout_seconds=120)
    return airflow.wait_for_run(airflow.trigger_dag(DAG_ID, parameters), timeout_seconds=600)


def query(stack: StackStatus, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(driver_url(read_environment(stack.folder)["CATALOG_DATABASE_URL"]))
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return rows


def test_every_photo_is_tagged_and_most_categories_are_right(
    stack: StackStatus, airflow: AirflowClient, truth: dict[str, str], tiny_models: TinyModels
) -> None:
    run_job(stack, "migrate")
    starter = run_job(
        stack,
        "train-starter",
        str(PHOTOS / "train"),
        f"--classifier-base={WEIGHTS}",
        f"--encoder-base={tiny_models.encoder}",
        "--encoder-epochs=0",
    )
    assert json.loads(starter.splitlines()[-1])["classifier_metrics"]["accuracy"] > 0.8

    planned = run_dag(airflow, plan_only=True)
    assert planned.state == "success"
    plan = airflow.read_xcom(DAG_ID, planned.run_id, "discover", key="report")
    assert plan["entries_by_reason"] == {"new": len(truth)}
    assert query(stack, "SELECT count(*) FROM catalog.images") == [(0,)]

    finished = run_dag(airflow)
    tasks = airflow.read_task_instances(DAG_ID, finished.run_id)
    assert finished.state == "success", [airflow.read_log(DAG_ID, finished.run_id, task)[-2000:] for task in tasks]
    report = airflow.read_xcom(DAG_ID, finished.run_id, "report")
    assert report["entries"] == len(truth) == report["tagged"] + report["reused"]
    assert query(stack, "SELECT count(*) FROM catalog.image_embeddings") == [(len(truth),)]

    again = run_dag(airflow)
    assert again.state == "success"
    assert airflow.read_xcom(DAG_ID, again.run_id, "report")["entries"] == 0

    tags = {row[0]: row[1] for row in query(stack, TAGS)}
    assert tags.keys() == truth.keys()
    right = sum(tags[key] == category for key, category in truth.items())
    assert right / len(truth) >= 0.85, f"{right} of {len(truth)} categories are right"


def test_fault_that_no_retry_cures_fails_at_once(airflow: AirflowClient) -> None:
    failed = run_dag(airflow, source="s3://no-such-bucket/")
    assert failed.state == "failed"
    states = {
        task.task_id: (task.state, task.try_number) for task in airflow.read_task_instances(DAG_ID, failed.run_id)
    }
    assert states["discover"] == ("failed", 1)
    assert states["report"][0] == "upstream_failed"
