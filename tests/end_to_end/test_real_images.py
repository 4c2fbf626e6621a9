"""Run both flows on real images in a real Airflow, from labels and a pretrained backbone to a retagged catalog."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from fixtures.champions import make_champion
from fixtures.real_data import REAL_IMAGES, RealImage, find_pretrained, list_real_images, write_labels
from fixtures.shop import TinyModels
from fixtures.stack_access import connect_s3
from jobs.cli import app
from jobs.retrain.labels.import_labels import import_labels as import_into_catalog
from tests.end_to_end.live_stack import PATIENCE_SECONDS, LiveStack, wait_until

WEIGHTS = find_pretrained()
CATEGORIES = {"dress", "hat", "pants", "shoes", "t-shirt"}
MAX_IMAGES = 30
SHOP_IMAGES = 40
TAGS = "SELECT object_key, category FROM catalog.current_image_tags"
LIVE = "SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'"
NO_GATES = {"CATALOG_GATE_POLICY": str(Path(__file__).with_name("no_gates.toml"))}
Folders = pytest.TempPathFactory
DECISIONS = """
    SELECT gate, verdict FROM catalog.gate_decisions JOIN catalog.evaluations USING (evaluation_id)
    WHERE run_id = :run
"""

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason="no real images: set CATALOG_REAL_PHOTOS to an ImageFolder"),
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no pretrained backbone: set CATALOG_PRETRAINED_WEIGHTS"),
]


@pytest.fixture(scope="module")
def images() -> list[RealImage]:
    """Choose some images of each easily recognized category, in a fixed random order."""
    found = sorted(list_real_images(), key=lambda image: hashlib.sha256(image.path.name.encode()).digest())
    chosen: dict[str, list[RealImage]] = {category: [] for category in CATEGORIES}
    for image in found:
        if image.category in chosen and len(chosen[image.category]) < MAX_IMAGES:
            chosen[image.category].append(image)
    return [image for image in found if image in chosen.get(image.category, ())]


@pytest.fixture(scope="module")
def truth(stack: LiveStack, images: list[RealImage]) -> dict[str, str]:
    """Upload the shop's images with keys that do not reveal the category. Return the category of each key."""
    with connect_s3(stack.status.folder) as client:
        for image in images[:SHOP_IMAGES]:
            client.upload_file(str(image.path), "images", image.path.name)
    return {image.path.name: image.category for image in images[:SHOP_IMAGES]}


@pytest.fixture(scope="module")
def champions(stack: LiveStack, images: list[RealImage], tiny_models: TinyModels, tmp_path_factory: Folders) -> None:
    """Promote a weak classifier, trained on half of the labels, and an encoder with random weights."""
    with stack.connect() as connections:
        make_champion(connections, tiny_models.encoder, "encoder")
    import_labels(stack, images[::2], tmp_path_factory.mktemp("half"))
    words = ["retrain", "--kinds=classifier", f"--classifier-base={tiny_models.classifier}"]
    with patch.dict(os.environ, stack.environment | NO_GATES):
        done = CliRunner().invoke(app, [*words, "--classifier-freeze=backbone", "--run=first"])
    assert done.exit_code == 0, done.exception
    assert [one["kind"] for one in json.loads(done.stdout.splitlines()[-1])["promotions"]] == ["classifier"]


@dataclass(frozen=True)
class FirstNight:
    """The plan and the report of `catalog_ingest` for a new shop, and the number of images stored after planning."""

    plan: dict[str, Any]
    images_after_plan: int
    report: dict[str, Any]


@pytest.fixture(scope="module")
def first_night(stack: LiveStack, champions: None, truth: dict[str, str]) -> FirstNight:
    """Plan a run without executing it, then tag the shop's images."""
    planned = stack.run_dag("catalog_ingest", plan_only=True)
    assert planned.state == "success", stack.read_logs(planned)
    plan = stack.airflow.read_xcom("catalog_ingest", planned.run_id, "discover", key="report")
    [(images,)] = stack.query("SELECT count(*) FROM catalog.images")
    ingested = stack.run_dag("catalog_ingest")
    assert ingested.state == "success", stack.read_logs(ingested)
    return FirstNight(plan, images, stack.airflow.read_xcom("catalog_ingest", ingested.run_id, "report"))


@pytest.fixture(scope="module")
def more_labels(stack: LiveStack, champions: None, images: list[RealImage], tmp_path_factory: Folders) -> None:
    """Import all labels. The first classifier was trained on half of them."""
    import_labels(stack, images, tmp_path_factory.mktemp("all"))


def import_labels(stack: LiveStack, images: list[RealImage], folder: Path) -> None:
    """Import the labels of images."""
    with stack.connect() as connections:
        report = import_into_catalog(connections, "csv", write_labels(images, folder), name="clothing")
    assert report.imported > 0


def read_decisions(stack: LiveStack, run_id: str) -> dict[str, str]:
    decisions = stack.query(DECISIONS, run=run_id)
    return dict(decisions)


def count_correct(stack: LiveStack, truth: dict[str, str]) -> int:
    tags = dict(stack.query(TAGS))
    assert tags.keys() == truth.keys()
    return sum(tags[key] == category for key, category in truth.items())


@pytest.mark.usefixtures("champions")
def test_first_champion_skips_comparisons(stack: LiveStack) -> None:
    verdicts = read_decisions(stack, "first")
    skipped = {gate for gate, verdict in verdicts.items() if verdict == "skipped"}
    assert skipped == {"not_worse_than_champion", "blast_radius"}


def test_first_champion_tags_the_shop(stack: LiveStack, first_night: FirstNight, truth: dict[str, str]) -> None:
    assert first_night.plan["entries_by_reason"] == {"new": len(truth)}
    assert first_night.images_after_plan == 0
    report = first_night.report
    assert report["entries"] == len(truth) == report["tagged"] + report["reused"]
    assert stack.query("SELECT count(*) FROM catalog.image_embeddings") == [(len(truth),)]
    again = stack.run_dag("catalog_ingest")
    assert stack.airflow.read_xcom("catalog_ingest", again.run_id, "report")["entries"] == 0
    assert dict(stack.query(TAGS)).keys() == truth.keys()


@pytest.mark.usefixtures("first_night", "more_labels")
def test_approved_candidate_retags_the_shop(stack: LiveStack, truth: dict[str, str]) -> None:
    (before,) = stack.query(LIVE)
    retags = len(stack.airflow.list_runs("catalog_retag"))
    frozen = {"kinds": "classifier", "classifier_base": str(WEIGHTS), "classifier_freeze": "backbone"}
    run = stack.start_dag("model_retrain", {**frozen, "require_approval": True})
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
    assert "not worse than champion" in approval_text.replace("\\", "")
    links = stack.airflow.read_links("model_retrain", run.run_id, "classifier.gate")
    assert links["Evaluation"] is not None
    assert "not worse than champion" in stack.airflow.read_page(links["Evaluation"])
    assert stack.query(LIVE) == [before]

    stack.answer_approval(run, "classifier.approve", is_approved=True)
    assert stack.airflow.wait_for_run(run, PATIENCE_SECONDS).state == "success", stack.read_logs(run)
    wait_until(lambda: len(stack.airflow.list_runs("catalog_retag")) > retags)
    retag = stack.airflow.wait_for_run(stack.airflow.list_runs("catalog_retag")[-1], PATIENCE_SECONDS)
    assert retag.state == "success", stack.read_logs(retag)
    (live,) = stack.query(LIVE)
    assert live != before
    assert stack.query("SELECT DISTINCT classifier_version_id FROM catalog.current_image_tags") == [live]
    # Far better than chance, so tags belong to the right images. `benchmarks.training.quality` measures accuracy.
    assert count_correct(stack, truth) / len(truth) >= 0.6


@pytest.mark.usefixtures("champions")
def test_failed_gate_ends_the_run(stack: LiveStack) -> None:
    """Run the gates of this stack on the first champion, which does not pass them."""
    run = stack.run_dag("judge", run="first")
    assert run.state == "failed"
    tasks = {task.task_id: task for task in stack.airflow.read_task_instances("judge", run.run_id)}
    gate = tasks["gate"]
    assert (gate.state, gate.try_number) == ("failed", 1)
    assert tasks["promote"].state == "upstream_failed"
    assert "accuracy is at least" in stack.airflow.read_log("judge", run.run_id, gate)
    links = stack.airflow.read_links("judge", run.run_id, "gate")
    assert links["Evaluation"] is not None
    assert "failed" in stack.airflow.read_page(links["Evaluation"])


def test_permanent_error_fails_without_a_retry(stack: LiveStack) -> None:
    failed = stack.run_dag("catalog_ingest", source="s3://no-such-bucket/")
    assert failed.state == "failed"
    tasks = stack.airflow.read_task_instances("catalog_ingest", failed.run_id)
    states = {task.task_id: (task.state, task.try_number) for task in tasks}
    assert states["discover"] == ("failed", 1)
    assert states["report"][0] == "upstream_failed"
