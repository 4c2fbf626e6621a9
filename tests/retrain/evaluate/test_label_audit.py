"""Labels that were changed on purpose are found, and nothing is removed."""

from dataclasses import replace

import numpy as np

from fixtures.candidates import make_labeled_set
from jobs.retrain.evaluate.evaluate_classifier import audit_labels
from jobs.retrain.evaluate.evaluation_files import LabelSuspect, decode_label_suspects, encode_list
from jobs.retrain.evaluate.scores import ClassifierAnswers


def test_most_of_the_flipped_labels_stand_at_the_top() -> None:
    labelled = make_labeled_set(train=0, validation=0, test=20)
    rows, categories = labelled.snapshot.part("test"), labelled.snapshot.categories
    # Of a classifier that is right about nine times in ten, and more or less sure of itself.
    truths = np.array([categories.index(row.category) for row in rows])
    scores = np.random.default_rng(7).normal(size=(len(rows), len(categories)))
    scores[np.arange(len(rows)), truths] += 3
    answers = ClassifierAnswers(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), categories)
    assert 0.85 < np.mean([best == row.category for best, row in zip(answers.best, rows, strict=True)]) < 1
    others = dict(zip(categories, [*categories[1:], categories[0]], strict=True))
    flipped = {row.content_hash for row in rows[::10]}
    noisy = [replace(row, category=others[row.category]) if row.content_hash in flipped else row for row in rows]

    suspects = audit_labels(noisy, answers, lambda row: row.content_hash[:4])
    top = suspects[: len(flipped)]
    assert len({suspect.content_hash for suspect in top} & flipped) >= 0.75 * len(flipped)
    truth = {row.content_hash: row.category for row in rows}
    assert all(one.suggested_label == truth[one.content_hash] for one in top if one.content_hash in flipped)
    assert [one.score for one in suspects] == sorted(one.score for one in suspects)
    assert suspects[0].thumbnail == suspects[0].content_hash[:4]


def test_nothing_is_suspected_by_a_model_that_knows_other_categories_or_answers_no_numbers() -> None:
    labelled = make_labeled_set(train=0, validation=0, test=2)
    rows = labelled.snapshot.part("test")
    numbers = np.full((len(rows), 4), 0.25)
    assert audit_labels(rows, ClassifierAnswers(numbers, ("a", "b", "c", "d")), lambda row: "") == []
    unknown = ClassifierAnswers(np.full((len(rows), 4), np.nan), labelled.snapshot.categories)
    assert audit_labels(rows, unknown, lambda row: "") == []


def test_the_list_comes_back_from_its_file() -> None:
    suspects = [LabelSuspect("ab" * 32, "hat", "Größe", 0.25, None)]
    assert decode_label_suspects(encode_list(suspects)) == suspects
