import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from fixtures.candidates import (
    EXACT,
    LabeledSet,
    make_labeled_set,
    rename_categories,
    write_classifier,
)
from fixtures.shop import CATEGORIES, Shop
from jobs.retrain.evaluate.compare_models import EvaluationContext, audit_labels, evaluate_classifier
from jobs.retrain.evaluate.evaluation_record import LabelSuspect, decode_label_suspects, encode_list
from jobs.retrain.evaluate.scores import ClassifierPredictions
from jobs.retrain.evaluate.served_model import ServedVersion
from jobs.retrain.snapshot.snapshot_images import SnapshotImages


def make_context(shop: Shop, labeled: LabeledSet, candidate: Path, champion: Path | None = None) -> EvaluationContext:
    connections = shop.connections
    images = SnapshotImages(connections.store, connections.artifacts)
    served = ServedVersion(champion, champion) if champion else None
    return EvaluationContext(connections, labeled.snapshot, images, EXACT, ServedVersion(candidate, candidate), served)


def test_classifier_trained_on_shuffled_labels_is_no_better_than_chance(
    stocked_shop: Shop, labeled: LabeledSet, tmp_path: Path
) -> None:
    labels = [row.category for row in labeled.snapshot.part("train")]
    write_classifier(tmp_path / "shuffled", labeled, random.Random(0).sample(labels, len(labels)))
    scores = evaluate_classifier(make_context(stocked_shop, labeled, tmp_path / "shuffled")).metrics.classifier
    assert scores is not None
    assert scores.correct < 0.6 * scores.images


def test_permuted_categories_give_wrong_predictions(
    stocked_shop: Shop, labeled: LabeledSet, trained: Path, tmp_path: Path
) -> None:
    permuted = shutil.copytree(trained, tmp_path / "permuted")
    rename_categories(permuted, [*CATEGORIES[1:], CATEGORIES[0]])
    metrics = evaluate_classifier(make_context(stocked_shop, labeled, permuted, champion=trained)).metrics
    assert metrics.classifier is not None
    assert metrics.paired is not None
    assert metrics.classifier.correct <= 2
    assert metrics.paired.only_champion >= 28


def test_champion_with_other_categories_is_compared_by_name(
    stocked_shop: Shop, labeled: LabeledSet, trained: Path, tmp_path: Path
) -> None:
    champion = shutil.copytree(trained, tmp_path / "champion")
    rename_categories(champion, ["dress", "cap", "shirt", "shoe"])
    metrics = evaluate_classifier(make_context(stocked_shop, labeled, trained, champion)).metrics
    assert metrics.champion_classifier is not None
    assert metrics.champion_classifier.categories == ["cap", "dress", "hat", "shirt", "shoe"]
    assert metrics.champion_classifier.recall_by_category["hat"] == 0
    assert metrics.paired is not None
    assert metrics.paired.only_candidate >= 7


def test_label_audit_ranks_flipped_labels_first() -> None:
    labeled = make_labeled_set(train=0, validation=0, test=20)
    rows, categories = labeled.snapshot.part("test"), labeled.snapshot.categories
    # Simulates a classifier with an accuracy of about 0.9 and varying confidence.
    truths = np.array([categories.index(row.category) for row in rows])
    scores = np.random.default_rng(7).normal(size=(len(rows), len(categories)))
    scores[np.arange(len(rows)), truths] += 3
    predictions = ClassifierPredictions(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), categories)
    assert 0.85 < np.mean([best == row.category for best, row in zip(predictions.best, rows, strict=True)]) < 1
    others = dict(zip(categories, [*categories[1:], categories[0]], strict=True))
    flipped = {row.content_hash for row in rows[::10]}
    noisy = [replace(row, category=others[row.category]) if row.content_hash in flipped else row for row in rows]

    suspects = audit_labels(noisy, predictions, lambda row: row.content_hash[:4])
    top = suspects[: len(flipped)]
    assert len({suspect.content_hash for suspect in top} & flipped) >= 0.75 * len(flipped)
    truth = {row.content_hash: row.category for row in rows}
    assert all(one.suggested_label == truth[one.content_hash] for one in top if one.content_hash in flipped)
    assert [one.score for one in suspects] == sorted(one.score for one in suspects)
    assert suspects[0].thumbnail == suspects[0].content_hash[:4]


def test_label_audit_is_empty_for_other_categories_or_nan() -> None:
    labeled = make_labeled_set(train=0, validation=0, test=2)
    rows = labeled.snapshot.part("test")
    numbers = np.full((len(rows), 4), 0.25)
    assert audit_labels(rows, ClassifierPredictions(numbers, ("a", "b", "c", "d")), lambda row: "") == []
    unknown = ClassifierPredictions(np.full((len(rows), 4), np.nan), labeled.snapshot.categories)
    assert audit_labels(rows, unknown, lambda row: "") == []


def test_label_suspects_survive_encoding() -> None:
    suspects = [LabelSuspect("ab" * 32, "hat", "Größe", 0.25, None)]
    assert decode_label_suspects(encode_list(suspects)) == suspects
