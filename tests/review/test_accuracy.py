"""The estimates are held against catalogs whose truth is known."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images
from jobs.ingest.drift import DriftSettings
from jobs.review.accuracy import Stratum, estimate_by_strata, estimate_share, read_reviewed_accuracy
from jobs.review.answers import Answer, record_answers, undo_answer
from jobs.review.queue import find_waiting, read_review_queue
from tests.browsing.conftest import SmallCatalog

DRIFT = DriftSettings()


def test_the_correction_finds_the_truth_that_hard_photos_hide() -> None:
    """As often as a 95 % interval should, over catalogs and reviews drawn by chance."""
    random = np.random.default_rng(7)
    covered, seeming_misses, repetitions = 0, 0, 400
    for _ in range(repetitions):
        confidences = random.beta(6, 1.5, size=20_000)
        is_right = random.random(20_000) < confidences
        truth = is_right.mean()
        strata_of = np.digitize(confidences, [0.5, 0.7, 0.9, 0.97])
        shares = np.bincount(strata_of[random.choice(20_000, 4_000, replace=False)], minlength=5) / 4_000
        hard = random.choice(np.flatnonzero(confidences < 0.7), 150, replace=False)
        reviewed = np.concatenate([hard, random.choice(20_000, 150, replace=False)])
        strata = [
            Stratum(
                shares[n],
                int((strata_of[reviewed] == n).sum()),
                int(is_right[reviewed][strata_of[reviewed] == n].sum()),
            )
            for n in range(5)
        ]
        estimate = estimate_by_strata(strata, 4_000)
        assert estimate is not None
        covered += estimate.low <= truth <= estimate.high
        seeming = estimate_share(int(is_right[reviewed].sum()), 300)
        seeming_misses += not seeming.low <= truth <= seeming.high
    assert covered >= 0.93 * repetitions
    assert seeming_misses > 0.9 * repetitions


def test_strata_without_reviews_are_judged_by_their_neighbour() -> None:
    alone = estimate_by_strata([Stratum(0.2, 0, 0), Stratum(0.3, 10, 5), Stratum(0.5, 1, 1)], 1000)
    assert alone is not None
    assert alone.share == pytest.approx(6 / 11)
    assert estimate_by_strata([], 1000) is None
    assert estimate_by_strata([Stratum(1, 0, 0)], 1000) is None
    certain = estimate_by_strata([Stratum(1, 5, 5)], 1000)
    assert certain is not None
    assert (certain.share, certain.high) == (1, 1)
    assert 0.5 < certain.low < 0.9


@pytest.mark.parametrize(("right", "of_all"), [(0, 1), (9, 10), (200, 200), (137, 212)])
def test_the_interval_is_wilson_s(right: int, of_all: int) -> None:
    wilson = binomtest(right, of_all).proportion_ci(0.95, method="wilson")
    estimate = estimate_share(right, of_all)
    assert (estimate.share, estimate.low, estimate.high) == pytest.approx((right / of_all, wilson.low, wilson.high))


def test_the_accuracy_of_a_catalog_whose_truth_is_known(connection: Connection, catalog: SmallCatalog) -> None:
    random = np.random.default_rng(3)
    confidences = random.beta(5, 1.5, size=1_500)
    new = [NewImage(f"Q{n}", "dress", None, float(confidence)) for n, confidence in enumerate(confidences)]
    image_ids = add_images(connection, new, catalog.space_id, catalog.classifier)
    is_right = dict(zip(image_ids, random.random(1_500) < confidences, strict=True))
    truth = np.mean(list(is_right.values()))

    before = read_reviewed_accuracy(connection)
    assert before is not None
    assert (before.audited, before.audit, before.reviewed, before.corrected) == (0, None, 0, None)
    review_ids = []
    for reason, size in (("low_confidence", 150), ("audit", 120)):
        asked = read_review_queue(connection, find_waiting(connection, DRIFT), reason, size)  # type: ignore[arg-type]
        answers = [
            Answer(item.image_id, item.reason, "dress" if is_right.get(item.image_id, True) else "hat")
            for item in asked
        ]
        review_ids += record_answers(connection, answers, "ann")
    accuracy = read_reviewed_accuracy(connection)
    assert accuracy is not None
    assert accuracy.audit is not None
    assert accuracy.corrected is not None
    assert accuracy.seeming is not None
    # Those of the hard ones that the audit would have drawn count in it.
    assert accuracy.audited > 125
    assert accuracy.unanswered == 0
    assert accuracy.reviewed == 270
    assert accuracy.seeming < truth - 0.1
    assert accuracy.audit.low < truth < accuracy.audit.high
    assert accuracy.corrected.low < truth < accuracy.corrected.high
    assert accuracy.corrected.high - accuracy.corrected.low < accuracy.audit.high - accuracy.audit.low

    for review_id in review_ids:
        undo_answer(connection, review_id, "ann")
    assert read_reviewed_accuracy(connection) == before


def test_photos_that_were_passed_over_are_told(connection: Connection, catalog: SmallCatalog) -> None:
    asked = read_review_queue(connection, find_waiting(connection, DRIFT), "audit", 10)
    record_answers(connection, [Answer(asked[2].image_id, "audit", "not clothing")], "ann")
    accuracy = read_reviewed_accuracy(connection)
    assert accuracy is not None
    assert accuracy.unanswered == 2
    assert accuracy.audit is not None
    assert accuracy.audit.share < 1


def test_the_audit_is_counted_all_around_the_circle(connection: Connection, catalog: SmallCatalog) -> None:
    add_images(
        connection, [NewImage(f"Q{n}", "dress", None, 0.99) for n in range(60)], catalog.space_id, catalog.classifier
    )
    asked = read_review_queue(connection, find_waiting(connection, DRIFT), "audit", 100)
    assert len(asked) > 60
    for answered, place in enumerate((0, 12, 24, 36, 48, len(asked) - 1)):
        record_answers(connection, [Answer(asked[place].image_id, "audit", "dress")], "ann")
        accuracy = read_reviewed_accuracy(connection)
        assert accuracy is not None
        assert accuracy.unanswered == place - answered


def test_without_a_live_classifier_there_is_no_accuracy(connection: Connection) -> None:
    assert read_reviewed_accuracy(connection) is None
    assert connection.execute(text("SELECT count(*) FROM catalog.reviews")).scalar_one() == 0
