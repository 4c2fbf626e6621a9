"""Expected values are calculated by hand."""

import math

import numpy as np
import pytest

from jobs.retrain.evaluate.evaluation_record import EncoderScores, PairedOutcomes
from jobs.retrain.evaluate.scores import (
    ClassifierPredictions,
    bin_confidence,
    measure_calibration_error,
    pair_outcomes,
    pair_recalls,
    rank_images,
    score_classifier,
    score_encoder,
)

KNOWN = ("dress", "hat", "shirt", "shoe")
PREDICTIONS = ClassifierPredictions(
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
AXES = np.eye(4, dtype=np.float32)


def test_accuracy_top_3_accuracy_and_recall() -> None:
    scores = score_classifier(PREDICTIONS, LABELS, KNOWN, temperature=1.5)
    assert (scores.images, scores.correct, scores.top_3_correct) == (5, 3, 4)
    assert scores.images_by_category == {"dress": 2, "hat": 2, "shirt": 1, "shoe": 0}
    assert scores.recall_by_category == {"dress": 0.5, "hat": 1, "shirt": 0, "shoe": None}
    assert scores.temperature == 1.5


def test_confusion_has_labels_as_rows_and_predictions_as_columns() -> None:
    scores = score_classifier(PREDICTIONS, LABELS, KNOWN, None)
    assert scores.categories == list(KNOWN)
    assert scores.confusion == [[1, 0, 0, 1], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_images_of_an_unknown_category_are_wrong() -> None:
    predictions = ClassifierPredictions(np.array([[0.9, 0.1], [0.2, 0.8]]), ("dress", "gown"))
    scores = score_classifier(predictions, ["hat", "dress"], ("dress", "hat"), None)
    assert scores.categories == ["dress", "gown", "hat"]
    assert (scores.correct, scores.top_3_correct) == (0, 1)
    assert scores.confusion == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert scores.recall_by_category == {"dress": 0, "hat": 0}


def test_columns_are_matched_by_name() -> None:
    order = [2, 0, 3, 1]
    permuted = ClassifierPredictions(PREDICTIONS.probabilities[:, order], tuple(KNOWN[index] for index in order))
    scores = score_classifier(permuted, LABELS, KNOWN, None)
    expected = score_classifier(PREDICTIONS, LABELS, KNOWN, None)
    assert (scores.correct, scores.confusion) == (expected.correct, expected.confusion)


def test_nan_is_a_wrong_prediction_and_prevents_calibration() -> None:
    probabilities = PREDICTIONS.probabilities.copy()
    probabilities[0] = np.nan
    scores = score_classifier(ClassifierPredictions(probabilities, KNOWN), LABELS, KNOWN, None)
    assert (scores.correct, scores.expected_calibration_error, scores.reliability) == (2, None, [])
    assert sum(map(sum, scores.confusion)) == 4


def test_calibration_error() -> None:
    # Two of four correct at 0.95, one of two at 0.5: (4 x 0.45 + 2 x 0) / 6.
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    bins = bin_confidence(confidence, np.array([True, True, False, False, True, False]))
    found = [(one.lower, one.images, one.confidence, one.accuracy) for one in bins]
    assert found == [pytest.approx((0.4, 2, 0.5, 0.5)), pytest.approx((0.9, 4, 0.95, 0.5))]
    assert measure_calibration_error(bins) == pytest.approx(0.3)


def test_bin_includes_its_upper_bound() -> None:
    bins = bin_confidence(np.array([0.1, 0.0, 1.0]), np.array([True, True, True]))
    assert [(one.lower, one.images) for one in bins] == [(0, 2), (pytest.approx(0.9), 1)]


def test_paired_outcomes() -> None:
    candidate, champion = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 1, 0], dtype=bool)
    assert pair_outcomes(candidate, champion) == PairedOutcomes(both=2, only_candidate=1, only_champion=1, neither=1)


def test_perfect_encoder() -> None:
    scores = score_encoder(AXES, AXES, ["a", "b", "c", "d"], logit_scale=100).scores
    assert scores.loss == pytest.approx(0, abs=1e-6)
    assert scores == EncoderScores(4, scores.loss, 100, 1, 1, 1, 1, 1)


def test_ranks_recall_and_reciprocal_rank() -> None:
    # The texts of images 0 and 1 are swapped: each finds the other image first, and ties with the rest at cosine 0.
    texts = AXES[[1, 0, 2, 3]]
    result = score_encoder(AXES, texts, ["a", "b", "c", "d"], logit_scale=1)
    assert result.ranks.tolist() == [4, 4, 1, 1]
    assert result.scores.recall_at_1 == 0.5
    assert result.scores.recall_at_5 == 1
    assert result.scores.mean_reciprocal_rank == pytest.approx((1 / 4 + 1 / 4 + 1 + 1) / 4)
    assert result.scores.clip_score == 50
    assert result.scores.in_batch_accuracy == 0.5


def test_image_with_equal_text_counts_as_match_and_text_counts_once() -> None:
    images = AXES[[0, 1, 2]]
    texts = AXES[[1, 1, 2]]
    result = score_encoder(images, texts, ["a", "a", "c"], logit_scale=1)
    assert result.ranks.tolist() == [1, 1]
    assert result.scores.in_batch_accuracy == 1


def test_ranks_follow_first_mention_of_texts() -> None:
    images = AXES[[0, 1, 2]]
    assert rank_images(images, AXES[[1, 1, 2]], ["z", "b", "a"]).tolist() == [3, 1, 1]


def test_constant_encoder_finds_nothing() -> None:
    alike = np.tile(AXES[0], (20, 1))
    scores = score_encoder(alike, alike, [str(number) for number in range(20)], logit_scale=1).scores
    assert scores.recall_at_10 == 0
    assert scores.loss == pytest.approx(math.log(20))


def test_equal_texts_are_not_negatives() -> None:
    images = AXES[[0, 0, 1]]
    scores = score_encoder(images, images, ["a", "a", "b"], logit_scale=10).scores
    # Each "a" has one negative, "b" has two. Both directions have the same loss.
    expected = (2 * math.log(1 + math.exp(-10)) + math.log(1 + 2 * math.exp(-10))) / 3
    assert scores.loss == pytest.approx(expected, rel=1e-3)


def test_nan_vectors_have_no_scores() -> None:
    broken = AXES.copy()
    broken[1, 1] = np.nan
    result = score_encoder(broken, AXES, ["a", "b", "c", "d"], logit_scale=1)
    assert result.scores == EncoderScores(4, None, None, None, None, None, None, None)
    assert pair_recalls(result, score_encoder(AXES, AXES, ["a", "b", "c", "d"], 1)) is None


def test_no_images_have_no_scores() -> None:
    nothing = np.empty((0, 4), dtype=np.float32)
    assert score_encoder(nothing, nothing, [], 1).scores == EncoderScores(0, *[None] * 7)


def test_pairs_recalls_by_text() -> None:
    names = [str(number) for number in range(4)]
    good, swapped = score_encoder(AXES, AXES, names, 1), score_encoder(AXES, AXES[[1, 0, 2, 3]], names, 1)
    assert pair_recalls(good, swapped) == {
        "recall_at_1": PairedOutcomes(both=2, only_candidate=2, only_champion=0, neither=0),
        "recall_at_5": PairedOutcomes(both=4, only_candidate=0, only_champion=0, neither=0),
        "recall_at_10": PairedOutcomes(both=4, only_candidate=0, only_champion=0, neither=0),
    }


def test_no_loss_without_logit_scale() -> None:
    scores = score_encoder(AXES, AXES, ["a", "b", "c", "d"], logit_scale=None).scores
    assert (scores.loss, scores.in_batch_accuracy, scores.recall_at_1) == (None, 1, 1)
