"""The build of a candidate: which option is chosen, what it predicts, and what is stored."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
from jobs.database.model_versions import find_build_version, read_model_version
from jobs.errors import PermanentError
from jobs.models.device import choose_device
from jobs.models.image_model import GRAPH_FILE, read_build
from jobs.models.openvino_model import list_float_precisions
from jobs.models.registry import fetch_checkpoint
from jobs.retrain.evaluate.evaluate import evaluate_candidate
from jobs.retrain.evaluate.fidelity import FIDELITY_FILE, read_served_build
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


def fetch_artifact(connections: Connections, report: OptimizeReport, cache: Path) -> Path:
    with connections.engine.connect() as connection:
        version = read_model_version(connection, report.model_version_id)
    return fetch_checkpoint(connections.store, version, cache)


def test_an_int8_classifier_predicts_like_its_checkpoint(built: Built, labeled: LabeledSet, tmp_path: Path) -> None:
    connections, report = built.connections, built.report
    assert (report.engine, report.precision, len(report.attempts)) == ("openvino", "int8", 1)
    folder = fetch_artifact(connections, report, tmp_path)
    served, exact = load_served_model(folder, "classifier", EXACT), load_trained_model(folder, "classifier", EXACT)
    assert served.categories == exact.categories
    pixels = load_part(labeled, "test", exact.geometry)
    fast, slow = served.predict(pixels), exact.predict(pixels)
    assert np.allclose(fast.sum(axis=1), 1, atol=1e-5)
    assert (fast != slow).any()
    # Real networks agree far better: this one is tiny and its first layer is random.
    assert (fast.argmax(axis=1) == slow.argmax(axis=1)).mean() > 0.7
    assert np.abs(fast - slow).mean() < 0.1
    with connections.engine.connect() as connection:
        version = read_model_version(connection, report.model_version_id)
        assert find_build_version(connection, report.trained_version_id) == report.model_version_id
    assert (version.engine, version.precision) == ("openvino", "int8")


def test_a_float32_graph_predicts_the_same_as_the_checkpoint(
    stocked_shop: Shop, labeled: LabeledSet, tmp_path: Path
) -> None:
    connections = stocked_shop.with_settings(engine="openvino", precision="fp32")
    report = optimize_candidate(connections, RUN, "classifier", POLICY)
    assert [(attempt.engine, attempt.precision) for attempt in report.attempts] == [("openvino", "fp32")]
    folder = fetch_artifact(connections, report, tmp_path)
    exact = load_trained_model(folder, "classifier", EXACT)
    # Not a multiple of the batch size, so the last batch is padded.
    pixels = load_part(labeled, "test", exact.geometry)[:13]
    assert np.abs(load_served_model(folder, "classifier", EXACT).predict(pixels) - exact.predict(pixels)).max() < 1e-4


def test_a_build_that_fails_the_gate_is_followed_by_the_next_precision(stocked_shop: Shop, tmp_path: Path) -> None:
    connections = stocked_shop.with_settings(engine="openvino", precision="auto")
    report = optimize_candidate(connections, RUN, "classifier", NOTHING)
    tried = [attempt.precision for attempt in report.attempts]
    assert list(dict.fromkeys(tried)) == ["int8", *list_float_precisions()]
    assert tried.count("int8") > 1
    assert all(any("agreement" in loss for loss in attempt.losses) for attempt in report.attempts)
    assert (report.engine, report.precision) == ("torch", "fp32")
    folder = fetch_artifact(connections, report, tmp_path)
    assert not (folder / GRAPH_FILE).exists()
    served = read_served_build(folder)
    assert served is not None
    assert (served.engine, served.precision, served.fidelity) == ("torch", "fp32", None)


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
    assert (report.precision, report.float_blocks) == ("int8", ("layers 4 to 6", "layer 7"))
    folder = fetch_artifact(connections, report, tmp_path / "cache")
    build, served = read_build(folder), read_served_build(folder)
    assert build is not None
    assert served is not None
    assert build.rest_precision == list_float_precisions()[0]
    assert build.int8_share is not None
    assert 0.25 < build.int8_share < 1
    chosen = next(attempt for attempt in mixed if attempt.float_blocks == report.float_blocks)
    assert (served.fidelity, chosen.losses) == (chosen.fidelity, ())
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
    assert report.attempts[-1].fidelity.worst_cosine is not None
    artifact = fetch_artifact(connections, report, tmp_path / "cache")
    assert {path.name for path in artifact.iterdir()} >= {path.name for path in folder.iterdir()} | {FIDELITY_FILE}
    model = load_served_model(artifact, "encoder", EXACT)
    vectors = model.predict(load_part(labeled, "test", model.geometry))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_torch_in_16_bits_is_tried(stocked_shop: Shop, tmp_path: Path) -> None:
    if choose_device("cpu", "bf16").precision != "bf16":
        pytest.skip("this processor does not compute in bf16")
    connections = stocked_shop.with_settings(engine="torch", precision="bf16", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", ANYTHING)
    assert (report.engine, report.precision) == ("torch", "bf16")
    build = read_build(fetch_artifact(connections, report, tmp_path))
    assert build is not None
    assert build.describe() == "torch bf16"


def test_a_16_bit_precision_that_the_processor_lacks_is_not_tried(stocked_shop: Shop) -> None:
    if choose_device("cpu", "fp16").precision != "fp32":
        pytest.skip("this processor computes in fp16")
    connections = stocked_shop.with_settings(engine="torch", precision="fp16", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", ANYTHING)
    assert (report.engine, report.precision, report.attempts) == ("torch", "fp32", ())


def test_a_model_that_cannot_be_converted_stays_in_torch(
    stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no operator of this kind\nand much advice")

    monkeypatch.setattr("jobs.retrain.optimize.convert.convert_checkpoint", fail)
    connections = stocked_shop.with_settings(engine="auto", precision="fp32", device="cpu")
    report = optimize_candidate(connections, RUN, "classifier", POLICY)
    assert (report.engine, report.precision, report.attempts) == ("torch", "fp32", ())
    assert "stays in torch: no operator of this kind" in caplog.text


def test_a_run_without_training_is_refused(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="run `python -m jobs train classifier` first"):
        optimize_candidate(shop.connections, RUN, "classifier", POLICY)


def test_a_process_that_serves_a_graph_never_imports_torch(built: Built, tmp_path: Path) -> None:
    folder = fetch_artifact(built.connections, built.report, tmp_path)
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "import jobs.ingest.tag_shard\n"
        "from jobs.models.engine import EngineSettings, load_image_model\n"
        "model = load_image_model(Path(sys.argv[1]), 'classifier', EngineSettings('auto', 'auto'))\n"
        "side = model.geometry.crop_to\n"
        "print(model.predict(np.zeros((3, side, side, 3), dtype=np.uint8)).shape)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("(3, ")
