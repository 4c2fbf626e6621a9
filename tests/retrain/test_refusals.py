"""A good candidate goes all the way; each kind of bad one is stopped by the gate that is there for it."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fixtures.candidates import (
    EXACT,
    LabeledSet,
    label_photo,
    load_part,
    make_labeled_set,
    register_candidate,
    rename_categories,
    serve_here,
    store_labeled_set,
    swap_normalisation,
    write_classifier,
    write_reference,
)
from fixtures.champions import make_champion
from fixtures.shop import CATEGORIES, Shop
from jobs.connections import Connections
from jobs.database.evaluations import read_gate_decisions, read_latest_evaluation
from jobs.errors import PermanentError
from jobs.models.classifier import load_classifier
from jobs.retrain.evaluate.evaluate import evaluate_candidate
from jobs.retrain.gates.gate import decide_gates
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.promote import promote_candidate
from jobs.retrain.snapshot.snapshot_file import make_snapshot
from jobs.retrain.train.layers import find_head
from jobs.storage.uri import S3Uri

RUN = "run-1"
# How fast a busy machine serves is not what is asked here, nor what memory the process of the tests takes.
POLICY = load_gate_policy().model_copy(
    update={"max_latency_milliseconds": 60_000, "min_images_per_second": 0.1, "max_memory_bytes": 10**11}
)


@dataclass(frozen=True)
class Case:
    """A shop with its labels, and a good checkpoint that learned them."""

    connections: Connections
    labeled: LabeledSet
    checkpoint: Path

    def put_on_trial(self, altered: LabeledSet | None = None) -> S3Uri:
        """Store the labels, or others, and register the checkpoint as what a run has trained; returns where it lies."""
        labeled = altered or self.labeled
        store_labeled_set(self.connections, labeled)
        version = register_candidate(self.connections, self.checkpoint, "classifier", labeled.snapshot, RUN)
        return S3Uri.parse(version.artifact_uri)

    def find_failed_gates(self) -> set[str]:
        """Evaluate, and have the gates decide."""
        evaluate_candidate(self.connections, RUN, "classifier")
        with pytest.raises(PermanentError, match="gates failed"):
            decide_gates(self.connections, RUN, "classifier", POLICY)
        with pytest.raises(PermanentError, match="did not pass its gates"):
            promote_candidate(self.connections, RUN, "classifier", "anna")
        with self.connections.engine.connect() as connection:
            evaluation = read_latest_evaluation(connection, RUN, "classifier")
            assert evaluation is not None
            decisions = read_gate_decisions(connection, evaluation.evaluation_id)
        return {decision.gate for decision in decisions if decision.verdict == "failed"}


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    """With as many test images as the gates ask for."""
    return make_labeled_set(test=45)


@pytest.fixture(scope="module")
def good_checkpoint(tmp_path_factory: pytest.TempPathFactory, labeled: LabeledSet) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_classifier(folder, labeled)
    return folder


@pytest.fixture
def case(
    shop: Shop, labeled: LabeledSet, good_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Case:
    monkeypatch.setattr("jobs.retrain.evaluate.evaluate.measure_serving", serve_here)
    return Case(shop.connections, labeled, shutil.copytree(good_checkpoint, tmp_path / "candidate"))


def test_a_good_candidate_is_promoted(case: Case) -> None:
    case.put_on_trial()
    evaluate_candidate(case.connections, RUN, "classifier")
    decide_gates(case.connections, RUN, "classifier", POLICY)
    assert promote_candidate(case.connections, RUN, "classifier", "anna").is_new


def test_trained_on_shuffled_labels(case: Case) -> None:
    labels = [row.category for row in case.labeled.snapshot.part("train")]
    write_classifier(case.checkpoint, case.labeled, random.Random(0).sample(labels, len(labels)))
    case.put_on_trial()
    assert case.find_failed_gates() >= {"accuracy", "category_recall"}


def test_order_of_categories_permuted(case: Case) -> None:
    rename_categories(case.checkpoint, [*CATEGORIES[1:], CATEGORIES[0]])
    case.put_on_trial()
    assert case.find_failed_gates() >= {"same_outputs", "accuracy"}


def test_preprocessing_swapped(case: Case) -> None:
    swap_normalisation(case.checkpoint)
    case.put_on_trial()
    assert "same_outputs" in case.find_failed_gates()


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: content[:-1] + b"\x00"])
def test_artifact_truncated_or_altered(case: Case, damage: Callable[[bytes], bytes]) -> None:
    weights = case.put_on_trial() / "model.safetensors"
    case.connections.store.write(weights, damage(case.connections.store.read(weights)))
    assert "artifact_checksum" in case.find_failed_gates()


def test_test_image_leaked_into_train(case: Case) -> None:
    """The same photo with other bytes, under another group."""
    row = case.labeled.snapshot.part("test")[0]
    copy = case.labeled.contents[row.content_hash] + b"\x00"
    leaked = label_photo(copy, row.category, "another group", "train")
    contents = case.labeled.contents | {leaked.content_hash: copy}
    case.put_on_trial(LabeledSet(make_snapshot([*case.labeled.snapshot.rows, leaked]), contents))
    assert case.find_failed_gates() == {"no_leak"}


def test_three_points_worse_than_the_champion(case: Case) -> None:
    make_champion(case.connections, case.checkpoint, "classifier")
    mistakes = round(0.033 * len(case.labeled.snapshot.part("test")))
    make_mistakes(case, mistakes)
    case.put_on_trial()
    # The bias that makes the mistakes costs some calibration too.
    assert case.find_failed_gates() - {"calibration"} == {"not_worse_than_champion"}


def make_mistakes(case: Case, mistakes: int) -> None:
    """Have the checkpoint take so many of the test images for hats, by as much of a bias as it takes."""
    classifier = load_classifier(case.checkpoint, EXACT)
    others = torch.tensor([row.category != "hat" for row in case.labeled.snapshot.part("test")])
    pixels = load_part(case.labeled, "test", classifier.preprocessing.geometry)[others]
    logits = classifier.predict(pixels).double().log()
    hat = classifier.categories.index("hat")
    leads = (logits.amax(1) - logits[:, hat]).sort().values
    head = find_head(classifier.model)[1]
    with torch.no_grad():
        head.bias[hat] += (leads[mistakes - 1] + leads[mistakes]) / 2
    classifier.model.save_pretrained(case.checkpoint)
    write_reference(case.checkpoint, "classifier", case.labeled)
