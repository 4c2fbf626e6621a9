"""Metrics of a good candidate of each kind. Tests replace single values."""

from typing import Any

from sqlalchemy import Connection

from fixtures.catalog_rows import promote_model, register_model
from jobs.database.evaluations import Evaluation, NewEvaluation, insert_evaluation, read_latest_evaluation
from jobs.database.examples import insert_snapshot
from jobs.database.model_versions import ModelKind
from jobs.retrain.evaluate.evaluation_record import (
    ArtifactCheck,
    BlastRadius,
    ClassifierScores,
    DataCheck,
    EncoderScores,
    EvaluationMetrics,
    Fidelity,
    PairedOutcomes,
    ReliabilityBin,
    ServedBuild,
    ServingMetrics,
)

SNAPSHOT = "ab" * 32
DATA = DataCheck(2700, 368, 341, 12, 0, 0, 0, 0.5)
ARTIFACT = ArtifactCheck(True, True, True, 2e-6, None)
SERVING = ServingMetrics(200, 41.2, 214.0, 0.0, 930_000_000)
CATEGORIES = ["dress", "hat", "shirt"]
CONFUSION = [[100, 2, 8], [1, 38, 3], [9, 4, 176]]

CLASSIFIER = EvaluationMetrics(
    data=DATA,
    artifact=ARTIFACT,
    build=ServedBuild("openvino", "int8", Fidelity(341, lost_accuracy=0.0029, agreement=0.997)),
    serving=SERVING,
    classifier=ClassifierScores(
        images=341,
        correct=314,
        top_3_correct=338,
        categories=CATEGORIES,
        images_by_category={"dress": 110, "hat": 42, "shirt": 189},
        recall_by_category={"dress": 100 / 110, "hat": 38 / 42, "shirt": 176 / 189},
        confusion=CONFUSION,
        expected_calibration_error=0.031,
        reliability=[ReliabilityBin(0.4, 41, 0.44, 0.5), ReliabilityBin(0.93, 300, 0.97, 0.96)],
        temperature=1.42,
    ),
    champion_classifier=ClassifierScores(
        images=341,
        correct=305,
        top_3_correct=333,
        categories=CATEGORIES,
        images_by_category={"dress": 110, "hat": 42, "shirt": 189},
        recall_by_category={"dress": 0.9, "hat": 0.81, "shirt": 0.91},
        confusion=CONFUSION,
        expected_calibration_error=0.04,
        reliability=[],
        temperature=1.1,
    ),
    paired=PairedOutcomes(both=298, only_candidate=16, only_champion=7, neither=20),
    blast_radius=BlastRadius(images=500, changed=27),
)
ENCODER_SCORES = EncoderScores(341, 1.1, 31.4, 0.62, 0.41, 0.70, 0.82, 0.54)
ENCODER = EvaluationMetrics(
    data=DATA,
    artifact=ARTIFACT,
    build=ServedBuild(
        "openvino",
        "bf16",
        Fidelity(341, mean_cosine=0.9991, worst_cosine=0.991, neighbor_recall=0.97, lost_recall_at_5=-0.003),
    ),
    serving=SERVING,
    encoder=ENCODER_SCORES,
    encoder_on_train=EncoderScores(1000, 0.4, 33.9, 0.88, 0.61, 0.88, 0.94, 0.73),
    champion_encoder=EncoderScores(341, 1.5, 30.2, 0.55, 0.33, 0.62, 0.75, 0.46),
    paired_recall={
        "recall_at_1": PairedOutcomes(95, 45, 18, 183),
        "recall_at_5": PairedOutcomes(200, 39, 12, 90),
        "recall_at_10": PairedOutcomes(246, 34, 10, 51),
    },
)
GOOD: dict[ModelKind, EvaluationMetrics] = {"classifier": CLASSIFIER, "encoder": ENCODER}


def replace_value(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a record with another value at a dotted path."""
    name, _, rest = path.partition(".")
    assert name in record, f"the record has no {name}"
    return {**record, name: replace_value(record[name], rest, value) if rest else value}


def make_evaluation(kind: ModelKind, record: dict[str, Any] | None = None, has_champion: bool = True) -> Evaluation:
    """Make an evaluation without storing it."""
    champion = 1 if has_champion else None
    return Evaluation(5, "run", kind, SNAPSHOT, 2, champion, record or GOOD[kind].as_record(), "s3://artifacts/e")


def store_evaluation(
    connection: Connection,
    kind: ModelKind,
    record: dict[str, Any] | None = None,
    has_champion: bool = True,
    artifact_uri: str = "s3://artifacts/evaluations/run",
) -> Evaluation:
    """Store an evaluation of the run ``run``, with a snapshot, a candidate and a champion."""
    insert_snapshot(connection, SNAPSHOT, "s3://artifacts/snapshot", {})
    dimensions = 8 if kind == "encoder" else None
    champion = promote_model(connection, kind, dimensions) if has_champion else None
    candidate = register_model(connection, kind, dimensions)
    evaluation = NewEvaluation(
        "run", kind, SNAPSHOT, candidate, champion, record or GOOD[kind].as_record(), artifact_uri
    )
    insert_evaluation(connection, evaluation)
    stored = read_latest_evaluation(connection, "run", kind)
    assert stored is not None
    return stored
