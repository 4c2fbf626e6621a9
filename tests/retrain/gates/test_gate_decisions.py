import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from jobs.database.evaluations import GateDecision
from jobs.database.model_versions import ModelKind
from jobs.retrain.evaluate.evaluation_record import ArtifactCheck, BlastRadius, EvaluationMetrics, PairedOutcomes
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import GATES, decide_all
from jobs.retrain.gates.paired_test import bound_difference
from tests.retrain.gates.sample_evaluations import CLASSIFIER, GOOD, make_evaluation, replace_value

POLICY = load_gate_policy()
COMPARISONS = {"not_worse_than_champion", "blast_radius", "recall_at_1", "recall_at_5", "recall_at_10"}
KINDS: list[ModelKind] = ["classifier", "encoder"]

# Kind, gate, path of the value, last value that passes, first value that fails.
BOUNDS: list[tuple[ModelKind, str, str, Any, Any]] = [
    ("classifier", "test_set_size", "classifier.images", 341, 173),
    ("classifier", "smallest_category", "data.fewest_test_images_of_a_category", 5, 4),
    ("classifier", "no_leak", "data.shared_contents", 0, 1),
    ("classifier", "no_leak", "data.shared_groups", 0, 1),
    ("classifier", "no_leak", "data.shared_near_duplicates", 0, 1),
    ("classifier", "snapshot_age", "data.age_days", 90.0, 90.01),
    ("classifier", "artifact_checksum", "artifact.is_checksum_right", True, False),
    ("classifier", "labels_and_preprocessing", "artifact.has_labels", True, False),
    ("classifier", "labels_and_preprocessing", "artifact.has_preprocessing", True, False),
    ("classifier", "same_outputs", "artifact.largest_difference", 1e-3, 1.01e-3),
    ("classifier", "same_outputs", "artifact.error", None, "the tokenizer is missing"),
    ("classifier", "fidelity", "build.fidelity.lost_accuracy", 0.005, 0.0051),
    ("classifier", "fidelity", "build.fidelity.agreement", 0.99, 0.9899),
    # Wilson's lower bound of 285 of 341 is 0.80016, of 284 it is 0.79702; of 317 it is 0.90329, of 316 it is 0.89996.
    ("classifier", "accuracy", "classifier.correct", 285, 284),
    ("classifier", "top_3_accuracy", "classifier.top_3_correct", 317, 316),
    ("classifier", "category_recall", "classifier.recall_by_category.hat", 0.60, 0.599),
    ("classifier", "calibration", "classifier.expected_calibration_error", 0.05, 0.0501),
    ("classifier", "blast_radius", "blast_radius.changed", 100, 101),
    ("classifier", "latency", "serving.mean_latency_milliseconds", 200.0, 200.1),
    ("classifier", "throughput", "serving.images_per_second", 100.0, 99.9),
    ("classifier", "failures", "serving.failed_share", 0.01, 0.0101),
    ("classifier", "memory", "serving.peak_memory_bytes", 2_000_000_000, 2_000_000_001),
    ("encoder", "test_set_size", "encoder.images", 174, 173),
    ("encoder", "no_leak", "data.shared_groups", 0, 1),
    ("encoder", "snapshot_age", "data.age_days", 90.0, 90.01),
    ("encoder", "artifact_checksum", "artifact.is_checksum_right", True, False),
    ("encoder", "preprocessing", "artifact.has_preprocessing", True, False),
    ("encoder", "same_outputs", "artifact.largest_difference", 1e-3, 1.01e-3),
    ("encoder", "fidelity", "build.fidelity.mean_cosine", 0.99, 0.9899),
    ("encoder", "fidelity", "build.fidelity.worst_cosine", 0.97, 0.9699),
    ("encoder", "fidelity", "build.fidelity.neighbor_recall", 0.95, 0.9499),
    ("encoder", "fidelity", "build.fidelity.lost_recall_at_5", 0.01, 0.0101),
    ("encoder", "clip_score", "encoder.clip_score", 30.0, 29.99),
    ("encoder", "latency", "serving.mean_latency_milliseconds", 200.0, 200.1),
    ("encoder", "failures", "serving.failed_share", 0.01, 0.0101),
    ("encoder", "memory", "serving.peak_memory_bytes", 2_000_000_000, 2_000_000_001),
]


def decide(
    kind: ModelKind, record: dict[str, Any], has_champion: bool = True, has_tagged_catalog: bool = True
) -> dict[str, GateDecision]:
    decisions = decide_all(make_evaluation(kind, record, has_champion), has_tagged_catalog, POLICY)
    assert [decision.gate for decision in decisions] == list(GATES[kind])
    return {decision.gate: decision for decision in decisions}


def decide_metrics(metrics: EvaluationMetrics) -> dict[str, GateDecision]:
    return decide("classifier", metrics.as_record())


def list_failed(decisions: dict[str, GateDecision]) -> set[str]:
    return {gate for gate, decision in decisions.items() if decision.verdict == "failed"}


def list_leaves(record: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in record.items():
        yield from list_leaves(value, f"{path}{name}.") if isinstance(value, dict) else [f"{path}{name}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_candidate_passes_every_gate(kind: ModelKind) -> None:
    decisions = decide(kind, GOOD[kind].as_record())
    assert {decision.verdict for decision in decisions.values()} == {"passed"}
    assert all(decision.value is not None and decision.bound is not None for decision in decisions.values())


@pytest.mark.parametrize(("kind", "gate", "path", "last", "first"), BOUNDS)
def test_each_gate_passes_at_its_bound_and_fails_beyond(
    kind: ModelKind, gate: str, path: str, last: Any, first: Any
) -> None:
    record = GOOD[kind].as_record()
    assert decide(kind, replace_value(record, path, last))[gate].verdict == "passed"
    beyond = decide(kind, replace_value(record, path, first))[gate]
    assert beyond.verdict == "failed"
    assert beyond.value is not None


@pytest.mark.parametrize(("precision", "verdict"), [("fp32", "passed"), ("bf16", "failed"), ("int8", "failed")])
def test_only_float32_needs_no_fidelity(precision: str, verdict: str) -> None:
    build = {"engine": "torch", "precision": precision, "fidelity": None}
    assert decide("encoder", replace_value(GOOD["encoder"].as_record(), "build", build))["fidelity"].verdict == verdict


def test_every_gate_is_tested_at_its_bound() -> None:
    tested = {(kind, gate) for kind, gate, *_ in BOUNDS}
    paired = {("classifier", "not_worse_than_champion"), *(("encoder", f"recall_at_{depth}") for depth in (1, 5, 10))}
    assert tested | paired == {(kind, gate) for kind in KINDS for gate in GATES[kind]}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, -2.0])
@pytest.mark.parametrize(("kind", "gate", "path", "last", "first"), BOUNDS)
def test_missing_and_non_finite_values_fail(
    kind: ModelKind, gate: str, path: str, last: Any, first: Any, value: float | None
) -> None:
    if path == "artifact.error":
        return
    assert decide(kind, replace_value(GOOD[kind].as_record(), path, value))[gate].verdict == "failed"


@pytest.mark.parametrize("kind", KINDS)
def test_missing_metrics_fail(kind: ModelKind) -> None:
    record = GOOD[kind].as_record()
    parts = [name for name, value in record.items() if value is not None and not name.startswith("champion_")]
    silent = {part for part in parts if not list_failed(decide(kind, replace_value(record, part, None)))}
    assert silent <= {"encoder_on_train"}


@pytest.mark.parametrize("kind", KINDS)
def test_empty_metrics_fail_every_gate(kind: ModelKind) -> None:
    decisions = decide(kind, EvaluationMetrics().as_record())
    assert list_failed(decisions) == set(GATES[kind])
    assert {decision.value for decision in decisions.values()} == {None}
    assert all("was not measured" in decision.sentence for decision in decisions.values())


@pytest.mark.parametrize("record", [{"data": "none"}, {"classifier": {"images": "many"}}, {"data": []}])
@pytest.mark.parametrize("kind", KINDS)
def test_unparsable_metrics_fail_every_gate(kind: ModelKind, record: dict[str, Any]) -> None:
    decisions = decide(kind, record)
    assert list_failed(decisions) == set(GATES[kind])
    assert all("metrics of the evaluation cannot be parsed" in decision.sentence for decision in decisions.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, "many", -1, math.nan, [], {}])
def test_no_value_raises(kind: ModelKind, value: Any) -> None:
    record = GOOD[kind].as_record()
    for path in list_leaves(record):
        decide(kind, replace_value(record, path, value))


@pytest.mark.parametrize("kind", KINDS)
def test_skips_only_comparisons_without_a_champion(kind: ModelKind) -> None:
    metrics = replace(GOOD[kind], paired=None, paired_recall=None, blast_radius=None)
    decisions = decide(kind, metrics.as_record(), has_champion=False, has_tagged_catalog=False)
    skipped = {gate for gate, decision in decisions.items() if decision.verdict == "skipped"}
    assert skipped == COMPARISONS & set(GATES[kind])
    assert not list_failed(decisions)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_comparison_fails_with_a_champion(kind: ModelKind) -> None:
    metrics = replace(GOOD[kind], paired=None, paired_recall=None, blast_radius=None)
    assert list_failed(decide(kind, metrics.as_record())) == COMPARISONS & set(GATES[kind])


def test_skips_blast_radius_without_tagged_catalog() -> None:
    record = replace(CLASSIFIER, blast_radius=None).as_record()
    assert decide("classifier", record, has_tagged_catalog=False)["blast_radius"].verdict == "skipped"
    assert decide("classifier", record, has_tagged_catalog=True)["blast_radius"].verdict == "failed"


@pytest.mark.parametrize("radius", [BlastRadius(0, 0), BlastRadius(10, 11), BlastRadius(-5, 1)])
def test_impossible_blast_radius_fails(radius: BlastRadius) -> None:
    assert list_failed(decide_metrics(replace(CLASSIFIER, blast_radius=radius))) == {"blast_radius"}


@pytest.mark.parametrize("lost", [10, 20, 40])
def test_rejects_candidate_that_is_three_points_worse(lost: int) -> None:
    """The candidate loses 10 or more of 341 images, with few or many disagreements."""
    assert CLASSIFIER.classifier
    for gained in (0, 5, 20):
        both = 290 - gained
        paired = PairedOutcomes(both, gained, gained + lost, 341 - both - 2 * gained - lost)
        scores = replace(CLASSIFIER.classifier, correct=both + gained)
        failed = list_failed(decide_metrics(replace(CLASSIFIER, classifier=scores, paired=paired)))
        assert failed == {"not_worse_than_champion"}


@pytest.mark.parametrize(("lost", "verdict"), [(12, "passed"), (13, "failed")])
def test_loss_of_the_margin_must_be_ruled_out(lost: int, verdict: str) -> None:
    """On 341 images with 12 gained, the bound is -0.0247 with 12 lost and -0.0282 with 13 lost."""
    assert CLASSIFIER.classifier
    paired = PairedOutcomes(both=302, only_candidate=12, only_champion=lost, neither=341 - 314 - lost)
    decision = decide_metrics(replace(CLASSIFIER, paired=paired))["not_worse_than_champion"]
    assert (decision.verdict, decision.bound) == (verdict, -0.025)


def test_bound_equal_to_the_margin_fails() -> None:
    paired = PairedOutcomes(both=302, only_candidate=12, only_champion=13, neither=14)
    record = replace(CLASSIFIER, paired=paired).as_record()
    margin = -bound_difference(paired)
    for wider, verdict in ((0.0, "failed"), (1e-9, "passed")):
        policy = POLICY.model_copy(update={"not_worse_margin": margin + wider})
        decisions = {one.gate: one for one in decide_all(make_evaluation("classifier", record), True, policy)}
        assert decisions["not_worse_than_champion"].verdict == verdict


def test_pairs_must_match_the_scores() -> None:
    assert CLASSIFIER.paired
    fewer = replace(CLASSIFIER.paired, both=CLASSIFIER.paired.both - 1)
    others = replace(CLASSIFIER.paired, both=CLASSIFIER.paired.both - 1, neither=CLASSIFIER.paired.neither + 1)
    for paired in (fewer, others, PairedOutcomes(0, 0, 0, 0), PairedOutcomes(320, -6, 7, 20)):
        decision = decide_metrics(replace(CLASSIFIER, paired=paired))["not_worse_than_champion"]
        assert (decision.verdict, decision.value) == ("failed", None)


@pytest.mark.parametrize("depth", [1, 5, 10])
def test_rejects_encoder_with_lower_recall(depth: int) -> None:
    """On 341 texts with 30 gained, the bound is -0.0477 with 33 lost and -0.0509 with 34 lost."""
    for lost, failed in ((33, set()), (34, {f"recall_at_{depth}"})):
        paired = PairedOutcomes(both=200, only_candidate=30, only_champion=lost, neither=111 - lost)
        record = replace_value(GOOD["encoder"].as_record(), f"paired_recall.recall_at_{depth}", asdict(paired))
        assert list_failed(decide("encoder", record)) == failed


def test_rejects_classifier_trained_on_shuffled_labels() -> None:
    """A classifier that learned nothing has an accuracy of one third, and is well calibrated."""
    assert CLASSIFIER.classifier
    recalls: dict[str, float | None] = {"dress": 0.3, "hat": 0.4, "shirt": 0.35}
    scores = replace(CLASSIFIER.classifier, correct=114, top_3_correct=341, recall_by_category=recalls)
    paired = PairedOutcomes(both=104, only_candidate=10, only_champion=201, neither=26)
    failed = list_failed(decide_metrics(replace(CLASSIFIER, classifier=scores, paired=paired)))
    assert failed == {"accuracy", "category_recall", "not_worse_than_champion"}


def test_rejects_artifact_with_other_outputs_than_in_training() -> None:
    moved = ArtifactCheck(True, True, True, largest_difference=0.93, error=None)
    assert list_failed(decide_metrics(replace(CLASSIFIER, artifact=moved))) == {"same_outputs"}


def test_rejects_modified_artifact() -> None:
    modified = ArtifactCheck(False, False, False, None, "model.safetensors was modified")
    decisions = decide_metrics(replace(CLASSIFIER, artifact=modified))
    assert list_failed(decisions) == {"artifact_checksum", "labels_and_preprocessing", "same_outputs"}
    assert "model.safetensors was modified" in decisions["artifact_checksum"].sentence


def test_rejects_uncalibrated_classifier() -> None:
    record = replace_value(CLASSIFIER.as_record(), "classifier.temperature", None)
    assert list_failed(decide("classifier", record)) == {"calibration"}


def test_names_category_without_recall() -> None:
    assert CLASSIFIER.classifier
    without: list[dict[str, float | None]] = [
        {"dress": 0.9, "shirt": 0.9},
        {"dress": 0.9, "hat": None, "shirt": 0.9},
        {},
    ]
    for recalls in without:
        scores = replace(CLASSIFIER.classifier, recall_by_category=recalls)
        decision = decide_metrics(replace(CLASSIFIER, classifier=scores))["category_recall"]
        assert (decision.verdict, decision.value) == ("failed", None)
        assert "hat" in decision.sentence


def test_small_test_set_fails_even_if_all_images_are_correct() -> None:
    """The lower bound of 12 of 12 is 0.816, so only the size of the test set fails."""
    assert CLASSIFIER.classifier
    scores = replace(CLASSIFIER.classifier, images=12, correct=12, top_3_correct=12)
    decisions = decide_metrics(replace(CLASSIFIER, classifier=scores, paired=PairedOutcomes(12, 0, 0, 0)))
    assert decisions["accuracy"].verdict == "passed"
    assert decisions["test_set_size"].verdict == "failed"


def test_tolerates_clocks_that_differ() -> None:
    record = replace_value(CLASSIFIER.as_record(), "data.age_days", -0.001)
    decision = decide("classifier", record)["snapshot_age"]
    assert decision.verdict == "passed"
    assert "0.0 days" in decision.sentence


def test_lower_bound_is_not_rounded_up() -> None:
    record = replace_value(CLASSIFIER.as_record(), "classifier.top_3_correct", 316)
    decision = decide("classifier", record)["top_3_accuracy"]
    assert decision.verdict == "failed"
    assert decision.sentence.startswith("top-3 accuracy is at least 89.9 % with")


def test_sentences() -> None:
    sentences = {gate: one.sentence for gate, one in decide_metrics(CLASSIFIER).items()}
    assert sentences["accuracy"] == (
        "accuracy is at least 89.3 % with 95 % confidence (92.1 % on 341 images); at least 80.0 % is required"
    )
    assert sentences["not_worse_than_champion"] == (
        "accuracy differs from the champion's by +2.6 % on the same 341 images (16 gained, 7 lost); "
        "the lower bound with 95 % confidence is +0.3 %; it must be above -2.5 %"
    )
    assert sentences["category_recall"] == (
        "the lowest recall is 90.5 %, of hat (42 images); at least 60.0 % is required for every category"
    )
    assert not any("\n" in sentence for sentence in sentences.values())
