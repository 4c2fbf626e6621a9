"""Real photos through a real Airflow: from labels and a pretrained backbone to a retagged catalog."""

import csv
import json
import os
from pathlib import Path

import pytest

from jobs.connections import connect
from jobs.local.airflow_client import DagRun
from jobs.settings import PROJECT_ROOT, make_settings
from tests.champions import make_champion
from tests.end_to_end.conftest import PATIENCE_SECONDS, LiveStack, wait_until
from tests.local.stack_access import connect_s3
from tests.shop import TinyModels

SHARED = PROJECT_ROOT.parent / "shared"
PHOTOS = Path(os.environ.get("CATALOG_REAL_PHOTOS", SHARED / "data" / "clothing-small"))
WEIGHTS = Path(os.environ.get("CATALOG_PRETRAINED_WEIGHTS", SHARED / "weights" / "efficientnet-lite0"))
MODEST_GATES = {
    "CATALOG_GATE_MIN_ACCURACY": "0.6",
    "CATALOG_GATE_MIN_CLASS_RECALL": "0.2",
    "CATALOG_GATE_MAX_CALIBRATION_ERROR": "0.2",
}
TAGS = "SELECT object_key, category FROM catalog.current_image_tags"
LIVE = "SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'"
DECISIONS = """
    SELECT gate, verdict FROM catalog.gate_decisions JOIN catalog.evaluations USING (evaluation_id)
    WHERE run_id = :run
"""

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.alone,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos: set CATALOG_REAL_PHOTOS to an ImageFolder"),
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no pretrained backbone: set CATALOG_PRETRAINED_WEIGHTS"),
]


@pytest.fixture(scope="module")
def truth(stack: LiveStack) -> dict[str, str]:
    """The category of each object of the shop: the validation photos, under flat names that do not tell it."""
    photos = sorted((PHOTOS / "validation").glob("*/*.jpg"))
    with connect_s3(stack.status.folder) as client:
        for photo in photos:
            client.upload_file(str(photo), "photos", photo.name)
    return {photo.name: photo.parent.name for photo in photos}


@pytest.fixture(scope="module")
def labels(stack: LiveStack, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All photos with their labels, grouped by who took them; those of the shop are among them."""
    folder = tmp_path_factory.mktemp("labels")
    for split in ("train", "validation"):
        (folder / split).symlink_to(PHOTOS / split)
    with (PHOTOS / "labels.csv").open(newline="") as file, (folder / "labels.csv").open("w", newline="") as copy:
        rows = csv.DictReader(file)
        writer = csv.writer(copy)
        writer.writerow(["image", "label", "group"])
        writer.writerows([row["path"], row["label"], row["contributor"]] for row in rows)
    stack.run_job("import-labels", "csv", str(folder / "labels.csv"), "--name=clothing")


@pytest.fixture(scope="module")
def encoder(stack: LiveStack, tiny_models: TinyModels) -> None:
    """Some encoder in use, as no pretrained one can be had here."""
    with connect(make_settings(stack.environment)) as connections:
        make_champion(connections, tiny_models.encoder, "encoder")


def retrain(stack: LiveStack, **parameters: object) -> DagRun:
    return stack.start_dag("model_retrain", {"kinds": "classifier", "classifier_base": str(WEIGHTS), **parameters})


def read_decisions(stack: LiveStack, run_id: str) -> dict[str, str]:
    decisions = stack.query(DECISIONS, run=run_id)
    return dict(decisions)


def count_right(stack: LiveStack, truth: dict[str, str]) -> int:
    tags = dict(stack.query(TAGS))
    assert tags.keys() == truth.keys()
    return sum(tags[key] == category for key, category in truth.items())


@pytest.mark.usefixtures("labels", "encoder")
def test_labels_become_a_champion_that_tags_the_shop(stack: LiveStack, truth: dict[str, str]) -> None:
    """The first champion: a new head on the frozen backbone, from a shell, which the default gates would refuse."""
    words = (
        "retrain",
        "--kinds=classifier",
        f"--classifier-base={WEIGHTS}",
        "--classifier-freeze=backbone",
        "--run=first",
    )
    report = json.loads(stack.run_job(*words, **MODEST_GATES).splitlines()[-1])
    assert [promotion["kind"] for promotion in report["promotions"]] == ["classifier"]
    verdicts = read_decisions(stack, "first")
    assert {gate for gate, verdict in verdicts.items() if verdict == "skipped"} == {
        "not_worse_than_champion",
        "blast_radius",
    }

    planned = stack.run_dag("catalog_ingest", plan_only=True)
    assert planned.state == "success", stack.read_logs(planned)
    plan = stack.airflow.read_xcom("catalog_ingest", planned.run_id, "discover", key="report")
    assert plan["entries_by_reason"] == {"new": len(truth)}
    assert stack.query("SELECT count(*) FROM catalog.images") == [(0,)]

    ingested = stack.run_dag("catalog_ingest")
    assert ingested.state == "success", stack.read_logs(ingested)
    report = stack.airflow.read_xcom("catalog_ingest", ingested.run_id, "report")
    assert report["entries"] == len(truth) == report["tagged"] + report["reused"]
    assert stack.query("SELECT count(*) FROM catalog.image_embeddings") == [(len(truth),)]
    again = stack.run_dag("catalog_ingest")
    assert stack.airflow.read_xcom("catalog_ingest", again.run_id, "report")["entries"] == 0
    assert count_right(stack, truth) / len(truth) >= 0.7


@pytest.mark.usefixtures("labels", "encoder")
def test_an_approved_candidate_retags_the_shop(stack: LiveStack, truth: dict[str, str]) -> None:
    """All defaults, after the test above, whose champion it is compared with."""
    (before,) = stack.query(LIVE)
    retags = len(stack.airflow.list_runs("catalog_retag"))
    run = retrain(stack, require_approval=True)
    wait_until(
        lambda: (
            stack.read_states(run)["classifier.approve"] == "awaiting_input"
            or stack.airflow.read_run("model_retrain", run.run_id).is_finished
        ),
        PATIENCE_SECONDS,
    )
    assert stack.read_states(run)["classifier.approve"] == "awaiting_input", stack.read_logs(run)
    assert set(read_decisions(stack, f"model_retrain/{run.run_id}").values()) == {"passed"}
    approval_text = stack.airflow.read_approval_text("model_retrain", run.run_id, "classifier.approve")
    assert "not_worse_than_champion" in approval_text.replace("\\", "")
    links = stack.airflow.read_links("model_retrain", run.run_id, "classifier.gate")
    assert links["Evaluation"] is not None
    assert "not_worse_than_champion" in stack.airflow.read_page(links["Evaluation"])
    assert stack.query(LIVE) == [before]

    stack.answer_approval(run, "classifier.approve", is_approved=True)
    assert stack.airflow.wait_for_run(run, PATIENCE_SECONDS).state == "success", stack.read_logs(run)
    wait_until(lambda: len(stack.airflow.list_runs("catalog_retag")) > retags)
    retag = stack.airflow.wait_for_run(stack.airflow.list_runs("catalog_retag")[-1], PATIENCE_SECONDS)
    assert retag.state == "success", stack.read_logs(retag)
    (live,) = stack.query(LIVE)
    assert live != before
    assert stack.query("SELECT DISTINCT classifier_version_id FROM catalog.current_image_tags") == [live]
    assert count_right(stack, truth) / len(truth) >= 0.8


@pytest.mark.usefixtures("labels")
def test_a_gate_that_fails_ends_the_run_there(stack: LiveStack, tiny_models: TinyModels) -> None:
    """A classifier from random weights whose backbone is frozen learns little."""
    promotions = stack.query("SELECT count(*) FROM catalog.promotions")
    run = stack.airflow.wait_for_run(
        retrain(stack, classifier_base=str(tiny_models.classifier), classifier_freeze="backbone"), PATIENCE_SECONDS
    )
    assert run.state == "failed"
    tasks = {task.task_id: task for task in stack.airflow.read_task_instances("model_retrain", run.run_id)}
    gate = tasks["classifier.gate"]
    assert (gate.state, gate.try_number) == ("failed", 1)
    assert tasks["classifier.promote"].state == "upstream_failed"
    assert "accuracy is at least" in stack.airflow.read_log("model_retrain", run.run_id, gate)
    links = stack.airflow.read_links("model_retrain", run.run_id, "classifier.gate")
    assert links["Evaluation"] is not None
    assert "failed" in stack.airflow.read_page(links["Evaluation"])
    assert stack.query("SELECT count(*) FROM catalog.promotions") == promotions


def test_a_fault_that_no_retry_cures_fails_at_once(stack: LiveStack) -> None:
    failed = stack.run_dag("catalog_ingest", source="s3://no-such-bucket/")
    assert failed.state == "failed"
    tasks = stack.airflow.read_task_instances("catalog_ingest", failed.run_id)
    states = {task.task_id: (task.state, task.try_number) for task in tasks}
    assert states["discover"] == ("failed", 1)
    assert states["report"][0] == "upstream_failed"
