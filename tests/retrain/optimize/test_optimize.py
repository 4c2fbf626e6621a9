"""The builds of a candidate: which one is admitted, what it predicts, and what is stored."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from fixtures.candidates import (
    EXACT,
    LabeledSet,
    load_part,
    make_labeled_set,
    register_candidate,
    serve_here,
    store_labeled_set,
    write_classifier,
    write_reference,
)
from fixtures.recorded_progress import record_progress
from fixtures.shop import Shop, TinyModels
from jobs.connections import Connections
from jobs.database.model_builds import EngineName, list_builds
from jobs.database.model_versions import read_model_version
from jobs.errors import PermanentError
from jobs.models.builds import ensure_build, fetch_build
from jobs.models.device import choose_device
from jobs.models.image_model import BUILD_FILE, GRAPH_FILE, PROGRAM_FILE, read_build
from jobs.models.openvino_model import list_float_precisions
from jobs.models.registry import fetch_checkpoint
from jobs.retrain.evaluate.evaluate import evaluate_candidate
from jobs.retrain.evaluate.served_model import load_served_model, load_trained_model
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.optimize.optimize import OptimizeReport, optimize_candidate
from jobs.settings import PROJECT_ROOT

RUN = "run-1"
POLICY = load_gate_policy()
ANYTHING = POLICY.model_copy(
    update={"max_lost_accuracy": 1.0, "min_agreement": 0.0, "min_mean_cosine": 0.0, "min_worst_cosine": 0.0}
    | {"min_neighbor_recall": 0.0, "max_lost_recall": 1.0}
)
STRICT = POLICY.model_copy(update={"min_agreement": 0.99, "max_lost_accuracy": 0.0})
NOTHING = POLICY.model_copy(update={"min_agreement": 1.01})


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    return make_labeled_set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labeled: LabeledSet) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(7)
    write_classifier(folder, labeled)
    return folder


@pytest.fixture
def stocked_shop(shop: Shop, labeled: LabeledSet, trained: Path) -> Shop:
    store_labeled_set(shop.connections, labeled)
    register_candidate(shop.connections, trained, "classifier", labeled.snapshot, RUN)
    return shop


@dataclass(frozen=True)
class Built:
    """A shop with an int8 build of the classifier, shared by all tests that only read it."""

    connections: Connections
    report: OptimizeReport


@pytest.fixture(scope="module")
def built(lasting_shop: Shop, labeled: LabeledSet, trained: Path) -> Built:
    store_labeled_set(lasting_shop.connections, labeled)
    register_candidate(lasting_shop.connections, trained, "classifier", labeled.snapshot, RUN)
    connections = lasting_shop.with_settings(engine="openvino", precision="int8")
    return Built(connections, optimize_candidate(connections, RUN, "classifier", ANYTHING))


@dataclass(frozen=True)
class Stored:
    """The folders of a version and of its build for this machine."""

    checkpoint: Path
    build: Path


def fetch(connections: Connections, report: OptimizeReport) -> Stored:
    with connections.engine.connect() as connection:
        version = read_model_version(connection, report.model_version_id)
    checkpoint = fetch_checkpoint(connections.store, version, connections.settings.locations.model_cache)
    return Stored(checkpoint, fetch_build(connections, version)[1])


def read_builds(connections: Connections, report: OptimizeReport) -> list[tuple[str, str, bool]]:
    """Return engine, precision and verdict of each registered build."""
    with connections.engine.connect() as connection:
        builds = list_builds(connection, report.model_version_id)
    return [(one.engine, one.precision, one.artifact_uri is not None) for one in builds]


def test_an_int8_classifier_predicts_like_its_checkpoint(built: Built, labeled: LabeledSet) -> None:
    connections, report = built.connections, built.report
    assert (report.engine, report.precision, len(report.attempts)) == ("openvino", "int8", 1)
    stored = fetch(connections, report)
    served = load_served_model(stored.build, "classifier", EXACT)
    exact = load_trained_model(stored.checkpoint, "classifier", EXACT)
    assert served.categories == exact.categories
    pixels = load_part(labeled, "test", exact.geometry)
    fast, slow = served.predict(pixels), exact.predict(pixels)
    assert np.allclose(fast.sum(axis=1), 1, atol=1e-5)
    assert (fast != slow).any()
    # Real networks agree far better: this one is tiny and its first layer is random.
    assert (fast.argmax(axis=1) == slow.argmax(axis=1)).mean() > 0.7
    assert np.abs(fast - slow).mean() < 0.1
    assert ("openvino", "int8", True) in read_builds(connections, report)
    assert {path.name for path in stored.build.iterdir()} == {BUILD_FILE, GRAPH_FILE, "graph.bin"}


PROGRAM = """
import sys, numpy as np
from pathlib import Path
import jobs.ingest.tag_shard
from jobs.models.engine import EngineSettings, load_image_model
model = load_image_model(Path(sys.argv[1]), "classifier", EngineSettings("cpu", "auto"))
side = model.geometry.crop_to
print(model.predict(np.zeros((3, side, side, 3), dtype=np.uint8)).shape)
assert not set(sys.argv[2:]) & set(sys.modules)
"""


def serve_without(folder: Path, *modules: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(folder), *modules]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("(3, ")


@pytest.mark.parametrize(("engine", "not_needed"), [("openvino", "torch"), ("torch", "openvino")])
def test_a_float32_build_predicts_the_same_as_the_checkpoint(
    stocked_shop: Shop, labeled: LabeledSet, engine: EngineName, not_needed: str
) -> None:
    connections = stocked_shop.with_settings(engine=engine, precision="fp32")
    report = optimize_candidate(connections, RUN, "classifier", POLICY)
    assert [(attempt.engine, attempt.precision) for attempt in report.attempts] == [(engine, "fp32")]
    stored = fetch(connections, report)
    exact = load_trained_model(stored.checkpoint, "classifier", EXACT)
    # Not a multiple of the batch size, so the last batch is padded.
    pixels = load_part(labeled, "test", exact.geometry)[:13]
    served = load_served_model(stored.build, "classifier", EXACT)
    assert np.abs(served.predict(pixels) - exact.predict(pixels)).max() < 1e-4
    assert np.abs(served.predict(pixels[:1]) - exact.predict(pixels[:1])).max() < 1e-4
    serve_without(stored.build, "transformers", not_needed)


def test_a_build_that_fails_the_gate_is_followed_by_the_next_precision(stocked_shop: Shop) -> None:
    connections = stocked_shop.with_settings(engine="openvino", precision="auto")
    report = optimize_candidate(connections, RUN, "classifier", NOTHING)
    *rejected, last = report.attempts
    assert list(dict.fromkeys(attempt.precision for attempt in rejected)) == ["int8", *list_float_precisions()]
    assert [attempt.precision for attempt in rejected].count("int8") > 1
    assert all(any("agreement" in loss for loss in attempt.losses) for attempt in rejected)
    assert (last.engine, last.precision, last.fidelity, last.losses) == ("torch", "fp32", None, ())
    assert (report.engine, report.precision) == ("torch", "fp32")
    assert not any(is_admitted for engine, _, is_admitted in read_builds(connections, report) if engine == "openvino")
    # The checkpoint itself, with all its files.
    with_torch = stocked_shop.with_settings(engine="torch", precision="fp32")
    stored = fetch(with_torch, report)
    names = {path.name for path in stored.checkpoint.iterdir()}
    assert {path.name for path in stored.build.iterdir()} == names | {BUILD_FILE}


def spoil_for_int8(folder: Path) -> None:
    """Scale up some output channels of the last residual block (layers 4 to 6) and scale them down in the head.

    In float32 the model stays the same. In int8 the other channels lose almost all of their resolution.
    """
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    block = model.resnet.encoder.stages[1].layers[0]
    with torch.no_grad():
        for widened in (block.layer[1].normalization, block.shortcut.normalization):
            widened.weight[:4] *= 4096
            widened.bias[:4] *= 4096
        model.classifier[1].weight[:, :4] /= 4096
    model.save_pretrained(folder)


def test_blocks_that_int8_cannot_represent_stay_in_float(
    shop: Shop, labeled: LabeledSet, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "spoiled"
    shutil.copytree(trained, checkpoint)
    spoil_for_int8(checkpoint)
    store_labeled_set(shop.connections, labeled)
    register_candidate(shop.connections, checkpoint, "classifier", labeled.snapshot, RUN)
    connections = shop.with_settings(engine="openvino", precision="auto")
    recorded = record_progress(monkeypatch, "jobs.retrain.optimize.optimize")
    report = optimize_candidate(connections, RUN, "classifier", STRICT)
    builds = [stage for stage in recorded.stages() if stage.startswith("build ")]
    assert len(builds) == len(report.attempts)
    assert builds[0] == "build 1: openvino int8 and fp32"
    assert recorded.of("calibrating int8")[-1].done >= 48
    ranking = recorded.of("ranking blocks by int8 error")
    assert (recorded.tasks, ranking[-1].done, ranking[-1].unit) == (["classifier.optimize"], ranking[0].total, "blocks")
    whole, *mixed = report.attempts
    assert (whole.float_blocks, whole.int8_share, bool(whole.losses)) == ((), None, True)
    assert all(attempt.precision == "int8" and attempt.float_blocks for attempt in mixed)
    assert report.precision == "int8"
    build = read_build(fetch(connections, report).build)
    assert build is not None
    assert build.rest_precision == list_float_precisions()[0]
    assert build.int8_share is not None
    assert 0.25 < build.int8_share < 1
    assert build.float_blocks == ("layers 4 to 6", "layer 7")
    chosen = next(attempt for attempt in mixed if attempt.float_blocks == build.float_blocks)
    assert chosen.losses == ()
    assert chosen.fidelity is not None
    with connections.engine.connect() as connection:
        (stored,) = [one for one in list_builds(connection, report.model_version_id) if one.engine == "openvino"]
    assert (stored.precision, stored.losses, stored.fidelity) == ("int8", (), asdict(chosen.fidelity))
    assert optimize_candidate(connections, RUN, "classifier", STRICT) == report


def test_building_is_reproducible(built: Built) -> None:
    assert optimize_candidate(built.connections, RUN, "classifier", ANYTHING) == built.report


def test_the_build_is_evaluated(built: Built, lasting_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.retrain.evaluate.evaluate.measure_serving", serve_here)
    evaluation = evaluate_candidate(built.connections, RUN, "classifier")
    assert evaluation.candidate_version_id == built.report.model_version_id
    assert evaluation.error is None
    metrics = lasting_shop.query("SELECT metrics FROM catalog.evaluations")[0][0]
    assert (metrics["build"]["engine"], metrics["build"]["precision"]) == ("openvino", "int8")
    assert metrics["build"]["fidelity"]["images"] == 32


def test_an_encoder_keeps_its_text_tower(
    shop: Shop, labeled: LabeledSet, tiny_models: TinyModels, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_models.encoder, folder)
    write_reference(folder, "encoder", labeled)
    store_labeled_set(shop.connections, labeled)
    register_candidate(shop.connections, folder, "encoder", labeled.snapshot, RUN)
    connections = shop.with_settings(engine="openvino", precision="int8")
    report = optimize_candidate(connections, RUN, "encoder", ANYTHING)
    fidelity = report.attempts[-1].fidelity
    assert fidelity is not None
    assert fidelity.worst_cosine is not None
    stored = fetch(connections, report)
    assert {path.name for path in stored.checkpoint.iterdir()} == {path.name for path in folder.iterdir()}
    model = load_served_model(stored.build, "encoder", EXACT)
    vectors = model.predict(load_part(labeled, "test", model.geometry))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_torch_in_16_bits_is_tried(stocked_shop: Shop) -> None:
    if choose_device("cpu", "bf16").precision != "bf16":
        pytest.skip("this processor does not compute in bf16")
    connections = stocked_shop.with_settings(engine="torch", precision="bf16", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", ANYTHING)
    assert (report.engine, report.precision) == ("torch", "bf16")
    build = read_build(fetch(connections, report).build)
    assert build is not None
    assert build.describe() == "torch bf16"


def test_a_16_bit_precision_that_the_processor_lacks_is_not_tried(stocked_shop: Shop) -> None:
    if choose_device("cpu", "fp16").precision != "fp32":
        pytest.skip("this processor computes in fp16")
    connections = stocked_shop.with_settings(engine="torch", precision="fp16", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", ANYTHING)
    assert [(one.engine, one.precision, one.losses) for one in report.attempts] == [("torch", "fp32", ())]
    # Stored as rejected, so that no process asks for it again.
    assert set(read_builds(connections, report)) == {("torch", "fp32", True), ("torch", "fp16", False)}
    assert fetch(connections, report).build.is_dir()


def test_a_model_that_cannot_be_converted_stays_in_torch(
    stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no operator of this kind\nand much advice")

    monkeypatch.setattr("jobs.retrain.optimize.convert.convert_checkpoint", fail)
    connections = stocked_shop.with_settings(engine="auto", precision="fp32", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", POLICY)
    assert [(one.engine, one.precision, one.losses) for one in report.attempts] == [("torch", "fp32", ())]
    assert "stays in torch: no operator of this kind" in caplog.text


def test_a_model_that_cannot_be_exported_is_served_by_transformers(
    stocked_shop: Shop, labeled: LabeledSet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no operator of this kind")

    monkeypatch.setattr("jobs.retrain.optimize.export.trace", fail)
    connections = stocked_shop.with_settings(engine="torch", precision="fp32", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", POLICY)
    assert "Transformers serves it: no operator of this kind" in caplog.text
    stored = fetch(connections, report)
    assert not (stored.build / PROGRAM_FILE).exists()
    exact = load_trained_model(stored.checkpoint, "classifier", EXACT)
    pixels = load_part(labeled, "test", exact.geometry)
    served = load_served_model(stored.build, "classifier", EXACT)
    assert np.abs(served.predict(pixels) - exact.predict(pixels)).max() < 1e-5


def test_another_machine_makes_its_own_build(built: Built, labeled: LabeledSet, lasting_shop: Shop) -> None:
    with built.connections.engine.connect() as connection:
        version = read_model_version(connection, built.report.model_version_id)
    elsewhere = lasting_shop.with_settings(engine="torch", precision="fp32", device="cpu")
    variables = {"CATALOG_ENGINE": "torch", "CATALOG_PRECISION": "fp32", "CATALOG_DEVICE": "cpu"}
    with patch.dict(os.environ, lasting_shop.environment | variables):
        build, folder = fetch_build(elsewhere, version)
    assert (build.engine, build.precision) == ("torch", "fp32")
    # Found, not made again: the environment no longer names a database.
    assert ensure_build(elsewhere, version) == build
    model = load_served_model(folder, "classifier", EXACT)
    other = load_served_model(fetch(built.connections, built.report).build, "classifier", EXACT)
    pixels = load_part(labeled, "test", model.geometry)
    assert np.abs(model.predict(pixels) - other.predict(pixels)).mean() < 0.1


def test_a_run_without_training_is_refused(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="run `catalog train classifier --run"):
        optimize_candidate(shop.connections, RUN, "classifier", POLICY)
