import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from fixtures.candidates import LabeledSet, make_labeled_set, store_labeled_set
from fixtures.command_line import FinishedCommand, run_job
from fixtures.job_processes import start_job
from fixtures.recorded_progress import record_progress
from fixtures.shop import CATEGORIES, IMAGE_SIDE, Shop, TinyModels
from fixtures.small_classifier import write_small_classifier
from jobs.database.model_versions import read_model_version
from jobs.errors import NotFoundError, PermanentError, RetryableError
from jobs.local.ports import LOOPBACK, find_free_ports
from jobs.models.checkpoint import hash_weights
from jobs.models.registry import fetch_checkpoint
from jobs.retrain.train.history import HISTORY_FILE
from jobs.retrain.train.requests import ClassifierTraining, EncoderTraining, Hyperparameters
from jobs.retrain.train.train import ABANDONED_DAYS, TrainingReport, _choose_folder, _hold_folder, train_candidate
from jobs.settings import PROJECT_ROOT
from tests.retrain.train.training_contexts import write_small_clip

HYPERPARAMETERS = Hyperparameters(epochs=1, batch_size=16, learning_rate=1e-3)
EPOCHS = 4
PRECISION = {"CATALOG_PRECISION": "fp32"}
TRAININGS = "SELECT run_id, kind, snapshot_id, model_version_id, settings, report FROM catalog.trainings ORDER BY 1, 2"
VERSIONS = "SELECT model_version_id, kind, data_snapshot FROM catalog.model_versions ORDER BY 1"


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    return make_labeled_set(train=24, validation=4, test=1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_small_classifier(tmp_path / "base", CATEGORIES)
    return tmp_path / "base"


@pytest.fixture
def labeled_shop(shop: Shop, labeled: LabeledSet) -> Shop:
    """A shop with a snapshot."""
    store_labeled_set(shop.connections, labeled)
    return shop


def write_transformer(folder: Path) -> None:
    """Write a vision transformer with dropout, whose weights have other names in its files than in memory."""
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        image_size=IMAGE_SIDE,
        patch_size=8,
        hidden_dropout_prob=0.1,
        id2label=dict(enumerate(CATEGORIES)),
        label2id={category: number for number, category in enumerate(CATEGORIES)},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}).save_pretrained(folder)


def start_two_processes(shop: Shop, words: Sequence[str]) -> subprocess.Popen[str]:
    """Run the command, which starts two training processes as it does on a machine with two GPUs."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "train", *words, "--processes=2"],
        cwd=PROJECT_ROOT,
        env=os.environ | shop.environment | PRECISION,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_history(shop: Shop, version: int, folder: Path) -> list[dict[str, float]]:
    """Return the epochs that the checkpoint of a model version records."""
    with shop.connections.engine.connect() as connection:
        registered = read_model_version(connection, version)
    fetched = fetch_checkpoint(shop.connections.store, registered, folder)
    history: list[dict[str, float]] = json.loads((fetched / HISTORY_FILE).read_text())
    return history


def run_in_process(shop: Shop, words: Sequence[str]) -> FinishedCommand:
    """Train in the process of the tests."""
    finished = run_job("train", *words, environment=shop.environment | PRECISION)
    assert finished.exit_code == 0, finished.messages
    return finished


def signal_after_first_epoch(shop: Shop, words: Sequence[str], number: signal.Signals, messages: Path) -> int | None:
    """Start a training, send it a signal when the first checkpoint is written, and return its exit code."""
    trainings = shop.connections.settings.locations.model_cache / "trainings"
    process = start_job("train", *words, environment=shop.environment | PRECISION, messages=messages)
    while process.is_alive() and not any(map(is_json, trainings.glob("*/*/checkpoint-*/trainer_state.json"))):
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(120)
    assert shop.query("SELECT count(*) FROM catalog.trainings WHERE run_id = 'killed'") == [(0,)], messages.read_text()
    return process.exitcode


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def make_options(labeled: LabeledSet, run_id: str, base: Path, epochs: int = EPOCHS) -> list[str]:
    return [
        f"--run={run_id}",
        f"--snapshot={labeled.snapshot.snapshot_id}",
        f"--base={base}",
        f"--epochs={epochs}",
        "--learning-rate=1e-3",
        "--batch-size=8",
    ]


def test_a_candidate_is_trained_stored_and_registered_but_not_promoted(
    labeled_shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path
) -> None:
    snapshot_id = labeled.snapshot.snapshot_id
    report = train_candidate(
        labeled_shop.connections, "run", snapshot_id, ClassifierTraining(base, "nothing", HYPERPARAMETERS)
    )
    assert labeled_shop.query(VERSIONS) == [(report.model_version_id, "classifier", snapshot_id)]
    assert labeled_shop.query("SELECT count(*) FROM catalog.promotions") == [(0,)]
    ((run_id, kind, snapshot, version, settings, stored),) = labeled_shop.query(TRAININGS)
    assert (run_id, kind, snapshot, version) == ("run", "classifier", snapshot_id, report.model_version_id)
    assert (settings["freeze"], settings["hyperparameters"]["epochs"]) == ("nothing", 1)
    assert TrainingReport(**stored) == report
    assert report.metrics["validation_images"] == 16

    with labeled_shop.connections.engine.connect() as connection:
        registered = read_model_version(connection, report.model_version_id)
    folder = fetch_checkpoint(labeled_shop.connections.store, registered, tmp_path / "fetched")
    assert hash_weights(folder) == report.weights_sha256
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "calibration.json",
        "reference_outputs.json",
        "training/history.json",
        "training/history.png",
        "training/settings.json",
    }
    assert str(tmp_path) not in (folder / "training" / "settings.json").read_text()
    assert not list((labeled_shop.connections.settings.locations.model_cache / "trainings").iterdir())


def test_a_training_reports_its_progress(
    labeled_shop: Shop, labeled: LabeledSet, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record_progress(monkeypatch, "jobs.retrain.train.train")
    request = ClassifierTraining(base, "nothing", replace(HYPERPARAMETERS, epochs=2))
    train_candidate(labeled_shop.connections, "run", labeled.snapshot.snapshot_id, request)
    assert recorded.tasks == ["classifier.train"]
    assert recorded.stages() == ["decoding images", "training", "scoring images", "storing the checkpoint"]
    training = recorded.of("training")
    # 96 images in steps of 16, and a report for each validation batch.
    assert sorted({report.done for report in training}) == list(range(16, 193, 16))
    assert {report.total for report in training} == {192}
    assert len(training) > 12
    assert {(report.epoch, report.epochs) for report in training if report.done <= 96} == {(1, 2)}
    assert {(report.epoch, report.epochs) for report in training if report.done > 96} == {(2, 2)}
    assert all(report.loss is not None and report.loss > 0 for report in training)
    assert all(report.images_per_second and report.seconds_left is not None for report in training[1:])


def test_a_trained_run_is_not_trained_again(labeled_shop: Shop, labeled: LabeledSet, base: Path) -> None:
    snapshot_id, request = labeled.snapshot.snapshot_id, ClassifierTraining(base, "backbone", HYPERPARAMETERS)
    report = train_candidate(labeled_shop.connections, "run", snapshot_id, request)
    # Training from this base would fail.
    assert train_candidate(labeled_shop.connections, "run", snapshot_id, replace(request, base=Path("/gone"))) == report


def test_a_trained_run_refuses_another_snapshot(labeled_shop: Shop, labeled: LabeledSet, base: Path) -> None:
    request = ClassifierTraining(base, "backbone", HYPERPARAMETERS)
    train_candidate(labeled_shop.connections, "run", labeled.snapshot.snapshot_id, request)
    with pytest.raises(PermanentError, match="start a new run"):
        train_candidate(labeled_shop.connections, "run", "0" * 64, request)


def test_two_runs_of_the_same_training_share_one_artifact(
    labeled_shop: Shop, labeled: LabeledSet, tiny_models: TinyModels, tmp_path: Path
) -> None:
    write_small_clip(tmp_path / "clip", [row.full_text for row in labeled.snapshot.rows])
    request = EncoderTraining(tmp_path / "clip", HYPERPARAMETERS)
    one, other = (
        train_candidate(labeled_shop.connections, run_id, labeled.snapshot.snapshot_id, request)
        for run_id in ("1", "2")
    )
    assert (one.kind, one.model_version_id, one.weights_sha256) == (
        "encoder",
        other.model_version_id,
        other.weights_sha256,
    )
    assert [row[0] for row in labeled_shop.query(TRAININGS)] == ["1", "2"]


def test_a_run_that_another_process_trains_is_refused(labeled_shop: Shop, labeled: LabeledSet, base: Path) -> None:
    snapshot_id, request = labeled.snapshot.snapshot_id, ClassifierTraining(base, "backbone", HYPERPARAMETERS)
    with (
        _hold_folder(_choose_folder(labeled_shop.connections, "run", "classifier")),
        pytest.raises(RetryableError, match="another process is training this run"),
    ):
        train_candidate(labeled_shop.connections, "run", snapshot_id, request)
    train_candidate(labeled_shop.connections, "run", snapshot_id, request)


def test_what_abandoned_runs_stored_is_deleted(labeled_shop: Shop, labeled: LabeledSet, base: Path) -> None:
    abandoned, running, recent = (
        _choose_folder(labeled_shop.connections, name, "classifier") for name in ("abandoned", "running", "recent")
    )
    long_ago = time.time() - (ABANDONED_DAYS + 1) * 24 * 3600
    for folder in (abandoned, running, recent):
        (folder / "shards").mkdir(parents=True)
    for folder in (abandoned, running):
        os.utime(folder, (long_ago, long_ago))
    request = ClassifierTraining(base, "backbone", HYPERPARAMETERS)
    with _hold_folder(running):
        train_candidate(labeled_shop.connections, "run", labeled.snapshot.snapshot_id, request)
    assert set(recent.parent.iterdir()) == {running, recent}


def test_an_unknown_snapshot_is_refused(labeled_shop: Shop, labeled: LabeledSet, base: Path) -> None:
    with pytest.raises(NotFoundError, match=f"there is no snapshot '0000.*{labeled.snapshot.snapshot_id}"):
        train_candidate(
            labeled_shop.connections, "run", "0" * 64, ClassifierTraining(base, "backbone", HYPERPARAMETERS)
        )


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    labeled_shop: Shop, labeled: LabeledSet, tmp_path: Path
) -> None:
    write_transformer(tmp_path / "base")
    words = ["classifier", *make_options(labeled, "killed", tmp_path / "base")]
    assert signal_after_first_epoch(labeled_shop, words, signal.SIGKILL, tmp_path / "messages") == -signal.SIGKILL
    resumed = run_in_process(labeled_shop, words)
    assert any("resuming after epoch" in line for line in resumed.messages)
    killed = json.loads(resumed.output)
    whole = json.loads(
        run_in_process(labeled_shop, ["classifier", *make_options(labeled, "whole", tmp_path / "base")]).output
    )
    assert killed["weights_sha256"] == whole["weights_sha256"]
    # The whole artifact is the same, including the history.
    assert killed["model_version_id"] == whole["model_version_id"]


def test_sigterm_stops_a_training(labeled_shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    words = ["classifier", *make_options(labeled, "killed", base)]
    assert signal_after_first_epoch(labeled_shop, words, signal.SIGTERM, tmp_path / "messages") == 143


def test_two_processes_train_one_candidate(labeled_shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    """Two processes with batches of 8 compute nearly the same loss as one process with batches of 16."""
    words = ["classifier", *make_options(labeled, "run", base, epochs=2), "--budget-minutes=60"]
    process = start_two_processes(labeled_shop, words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(reports) == 3
    assert reports[0] == reports[1] == reports[2]
    # Airflow reads the last line.
    assert output.splitlines()[-1].startswith("{")
    assert labeled_shop.query("SELECT count(*) FROM catalog.model_versions") == [(1,)]
    assert labeled_shop.query("SELECT count(*) FROM catalog.trainings") == [(1,)]

    alone = json.loads(
        run_in_process(
            labeled_shop, ["classifier", *make_options(labeled, "alone", base, epochs=2), "--batch-size=16"]
        ).output
    )
    together, expected = (
        read_history(labeled_shop, report["model_version_id"], tmp_path / report["weights_sha256"])
        for report in (reports[0], alone)
    )
    assert len(together) == 2
    assert together[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=0.3)


def test_two_processes_fit_one_head(labeled_shop: Shop, labeled: LabeledSet, base: Path, tmp_path: Path) -> None:
    words = ["train", "classifier", *make_options(labeled, "run", base), "--freeze=backbone"]
    # The environment that torchrun sets. These processes have already loaded the libraries, so they start faster.
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(find_free_ports(1)[0])}
    processes = [
        start_job(
            *words,
            environment=labeled_shop.environment | PRECISION | group | {"RANK": rank, "LOCAL_RANK": rank},
            messages=tmp_path / rank,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        process.join(120)
    written = [(tmp_path / rank).read_text() for rank in ("0", "1")]
    assert [process.exitcode for process in processes] == [0, 0], written
    one, other = (json.loads(lines.splitlines()[-1]) for lines in written)
    assert one == other
    assert labeled_shop.query("SELECT count(*) FROM catalog.trainings") == [(1,)]
