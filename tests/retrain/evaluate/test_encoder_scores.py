"""The scores of an encoder, each against numbers that were worked out by hand."""

import math

import numpy as np
import pytest

from jobs.retrain.evaluate.evaluation_record import EncoderScores, PairedOutcomes
from jobs.retrain.evaluate.scores import pair_recalls, rank_photos, score_encoder

AXES = np.eye(4, dtype=np.float32)


def test_a_perfect_encoder() -> None:
    scores = score_encoder(AXES, AXES, ["a", "b", "c", "d"], logit_scale=100).scores
    assert scores.loss == pytest.approx(0, abs=1e-6)
    assert scores == EncoderScores(4, scores.loss, 100, 1, 1, 1, 1, 1)


def test_ranks_recall_and_reciprocal_rank() -> None:
    # The texts of photos 0 and 1 are swapped: each finds the other's photo first, and its own among those at cosine 0.
    texts = AXES[[1, 0, 2, 3]]
    outcome = score_encoder(AXES, texts, ["a", "b", "c", "d"], logit_scale=1)
    assert outcome.ranks.tolist() == [4, 4, 1, 1]
    assert outcome.scores.recall_at_1 == 0.5
    assert outcome.scores.recall_at_5 == 1
    assert outcome.scores.mean_reciprocal_rank == pytest.approx((1 / 4 + 1 / 4 + 1 + 1) / 4)
    assert outcome.scores.clip_score == 50
    assert outcome.scores.in_batch_accuracy == 0.5


def test_a_photo_with_the_very_same_text_counts_as_found_and_the_text_is_asked_for_once() -> None:
    photos = AXES[[0, 1, 2]]
    texts = AXES[[1, 1, 2]]
    outcome = score_encoder(photos, texts, ["a", "a", "c"], logit_scale=1)
    assert outcome.ranks.tolist() == [1, 1]
    assert outcome.scores.in_batch_accuracy == 1


def test_ranks_are_in_the_order_in_which_texts_are_first_mentioned() -> None:
    photos = AXES[[0, 1, 2]]
    assert rank_photos(photos, AXES[[1, 1, 2]], ["z", "b", "a"]).tolist() == [3, 1, 1]


def test_an_encoder_to_which_all_is_alike_finds_nothing() -> None:
    alike = np.tile(AXES[0], (20, 1))
    scores = score_encoder(alike, alike, [str(number) for number in range(20)], logit_scale=1).scores
    assert scores.recall_at_10 == 0
    assert scores.loss == pytest.approx(math.log(20))


def test_equal_texts_are_no_negatives_of_each_other() -> None:
    photos = AXES[[0, 0, 1]]
    scores = score_encoder(photos, photos, ["a", "a", "b"], logit_scale=10).scores
    # Each "a" has one negative, "b" has two; both directions are alike.
    expected = (2 * math.log(1 + math.exp(-10)) + math.log(1 + 2 * math.exp(-10))) / 3
    assert scores.loss == pytest.approx(expected, rel=1e-3)


def test_vectors_that_are_no_numbers_have_no_scores() -> None:
    broken = AXES.copy()
    broken[1, 1] = np.nan
    outcome = score_encoder(broken, AXES, ["a", "b", "c", "d"], logit_scale=1)
    assert outcome.scores == EncoderScores(4, None, None, None, None, None, None, None)
    assert pair_recalls(outcome, score_encoder(AXES, AXES, ["a", "b", "c", "d"], 1)) is None


def test_no_photos_have_no_scores() -> None:
    nothing = np.empty((0, 4), dtype=np.float32)
    assert score_encoder(nothing, nothing, [], 1).scores == EncoderScores(0, *[None] * 7)


def test_recalls_are_paired_by_text() -> None:
    names = [str(number) for number in range(4)]
    good, swapped = score_encoder(AXES, AXES, names, 1), score_encoder(AXES, AXES[[1, 0, 2, 3]], names, 1)
    assert pair_recalls(good, swapped) == {
        "recall_at_1": PairedOutcomes(both=2, only_candidate=2, only_champion=0, neither=0),
        "recall_at_5": PairedOutcomes(both=4, only_candidate=0, only_champion=0, neither=0),
        "recall_at_10": PairedOutcomes(both=4, only_candidate=0, only_champion=0, neither=0),
    }


def test_without_a_scale_there_is_no_loss() -> None:
    scores = score_encoder(AXES, AXES, ["a", "b", "c", "d"], logit_scale=None).scores
    assert (scores.loss, scores.in_batch_accuracy, scores.recall_at_1) == (None, 1, 1)
