"""A good candidate is promoted, and each kind of bad candidate is refused by the gate against it."""

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
    label_image,
    load_part,
    make_labeled_set,
    register_candidate,
    rename_categories,
    serve_here,
    store_labeled_set,
    swap_normalization,
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
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import decide_gates
from jobs.retrain.promote import promote_candidate
from jobs.retrain.snapshot.snapshot_file import make_snapshot
from jobs.retrain.train.layers import find_head
from jobs.storage.locations import S3Uri

RUN = "run-1"
# The speed of a busy machine and the memory of the test process must not decide these tests.
POLICY = load_gate_policy().model_copy(
    update={"max_latency_milliseconds": 60_000, "min_images_per_second": 0.1, "max_memory_bytes": 10**11}
)


@dataclass(frozen=True)
class Case:
    """A shop with its labels, and a good checkpoint trained on them."""

    connections: Connections
    labeled: LabeledSet
    checkpoint: Path

    def register(self, altered: LabeledSet | None = None) -> S3Uri:
        """Store the labels and register the checkpoint as the candidate of the run. Return its location."""
        labeled = altered or self.labeled
        store_labeled_set(self.connections, labeled)
        version = register_candidate(self.connections, self.checkpoint, "classifier", labeled.snapshot, RUN)
        return S3Uri.parse(version.artifact_uri)

    def find_failed_gates(self) -> set[str]:
        """Evaluate the candidate and return the gates that fail."""
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
    """A labeled set with as many test images as the gates require."""
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
    case.register()
    evaluate_candidate(case.connections, RUN, "classifier")
    decide_gates(case.connections, RUN, "classifier", POLICY)
    assert promote_candidate(case.connections, RUN, "classifier", "anna").is_new


def test_training_on_shuffled_labels_is_refused(case: Case) -> None:
    labels = [row.category for row in case.labeled.snapshot.part("train")]
    write_classifier(case.checkpoint, case.labeled, random.Random(0).sample(labels, len(labels)))
    case.register()
    assert case.find_failed_gates() >= {"accuracy", "category_recall"}


def test_permuted_categories_are_refused(case: Case) -> None:
    rename_categories(case.checkpoint, [*CATEGORIES[1:], CATEGORIES[0]])
    case.register()
    assert case.find_failed_gates() >= {"same_outputs", "accuracy"}


def test_swapped_preprocessing_is_refused(case: Case) -> None:
    swap_normalization(case.checkpoint)
    case.register()
    assert "same_outputs" in case.find_failed_gates()


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: content[:-1] + b"\x00"])
def test_a_truncated_or_altered_artifact_is_refused(case: Case, damage: Callable[[bytes], bytes]) -> None:
    weights = case.register() / "model.safetensors"
    case.connections.store.write(weights, damage(case.connections.store.read(weights)))
    assert "artifact_checksum" in case.find_failed_gates()


def test_a_test_image_in_train_is_refused(case: Case) -> None:
    """The same image with other bytes, in another group."""
    row = case.labeled.snapshot.part("test")[0]
    copy = case.labeled.contents[row.content_hash] + b"\x00"
    leaked = label_image(copy, row.category, "another group", "train")
    contents = case.labeled.contents | {leaked.content_hash: copy}
    case.register(LabeledSet(make_snapshot([*case.labeled.snapshot.rows, leaked]), contents))
    assert case.find_failed_gates() == {"no_leak"}


def test_a_candidate_three_points_worse_than_the_champion_is_refused(case: Case) -> None:
    make_champion(case.connections, case.checkpoint, "classifier")
    mistakes = round(0.033 * len(case.labeled.snapshot.part("test")))
    make_mistakes(case, mistakes)
    case.register()
    # The bias that causes the mistakes also worsens calibration.
    assert case.find_failed_gates() - {"calibration"} == {"not_worse_than_champion"}


def make_mistakes(case: Case, mistakes: int) -> None:
    """Raise the bias of hats until the checkpoint predicts so many test images wrongly as hats."""
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
