"""The scores of a classifier, each against numbers that were worked out by hand."""

import numpy as np
import pytest

from jobs.retrain.evaluate.evaluation_record import PairedOutcomes
from jobs.retrain.evaluate.scores import (
    ClassifierAnswers,
    bin_confidence,
    measure_calibration_error,
    pair_outcomes,
    score_classifier,
)

KNOWN = ("dress", "hat", "shirt", "shoe")
ANSWERS = ClassifierAnswers(
    np.array(
        [
            [0.7, 0.1, 0.1, 0.1],
            [0.4, 0.3, 0.2, 0.1],
            [0.1, 0.2, 0.3, 0.4],
            [0.1, 0.8, 0.05, 0.05],
            [0.1, 0.6, 0.1, 0.2],
        ]
    ),
    KNOWN,
)
LABELS = ["dress", "shirt", "dress", "hat", "hat"]


def test_accuracy_top_3_and_recall() -> None:
    scores = score_classifier(ANSWERS, LABELS, KNOWN, temperature=1.5)
    assert (scores.images, scores.correct, scores.top_3_correct) == (5, 3, 4)
    assert scores.images_by_category == {"dress": 2, "hat": 2, "shirt": 1, "shoe": 0}
    assert scores.recall_by_category == {"dress": 0.5, "hat": 1, "shirt": 0, "shoe": None}
    assert scores.temperature == 1.5


def test_confusion_has_a_row_for_each_label_and_a_column_for_each_answer() -> None:
    scores = score_classifier(ANSWERS, LABELS, KNOWN, None)
    assert scores.categories == list(KNOWN)
    assert scores.confusion == [[1, 0, 0, 1], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_category_that_the_model_does_not_know_is_always_wrong() -> None:
    answers = ClassifierAnswers(np.array([[0.9, 0.1], [0.2, 0.8]]), ("dress", "gown"))
    scores = score_classifier(answers, ["hat", "dress"], ("dress", "hat"), None)
    assert scores.categories == ["dress", "gown", "hat"]
    assert (scores.correct, scores.top_3_correct) == (0, 1)
    assert scores.confusion == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert scores.recall_by_category == {"dress": 0, "hat": 0}


def test_columns_count_by_their_names_and_not_by_their_order() -> None:
    order = [2, 0, 3, 1]
    permuted = ClassifierAnswers(ANSWERS.probabilities[:, order], tuple(KNOWN[index] for index in order))
    scores = score_classifier(permuted, LABELS, KNOWN, None)
    expected = score_classifier(ANSWERS, LABELS, KNOWN, None)
    assert (scores.correct, scores.confusion) == (expected.correct, expected.confusion)


def test_numbers_that_are_none_are_wrong_answers_and_have_no_calibration() -> None:
    probabilities = ANSWERS.probabilities.copy()
    probabilities[0] = np.nan
    scores = score_classifier(ClassifierAnswers(probabilities, KNOWN), LABELS, KNOWN, None)
    assert (scores.correct, scores.expected_calibration_error, scores.reliability) == (2, None, [])
    assert sum(map(sum, scores.confusion)) == 4


def test_the_calibration_error_by_hand() -> None:
    # Two of four right at 0.95, one of two at 0.5: (4 x 0.45 + 2 x 0) / 6.
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    bins = bin_confidence(confidence, np.array([True, True, False, False, True, False]))
    found = [(one.lower, one.images, one.confidence, one.accuracy) for one in bins]
    assert found == [pytest.approx((0.4, 2, 0.5, 0.5)), pytest.approx((0.9, 4, 0.95, 0.5))]
    assert measure_calibration_error(bins) == pytest.approx(0.3)


def test_an_upper_bound_belongs_to_its_bin() -> None:
    bins = bin_confidence(np.array([0.1, 0.0, 1.0]), np.array([True, True, True]))
    assert [(one.lower, one.images) for one in bins] == [(0, 2), (pytest.approx(0.9), 1)]


def test_paired_outcomes() -> None:
    candidate, champion = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 1, 0], dtype=bool)
    assert pair_outcomes(candidate, champion) == PairedOutcomes(both=2, only_candidate=1, only_champion=1, neither=1)
