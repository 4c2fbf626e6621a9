"""Compare the estimate with catalogs of known accuracy."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images
from jobs.database.reviews import Answer
from jobs.review.accuracy import estimate_share, read_reviewed_accuracy
from jobs.review.answers import record_answers, undo_answer
from jobs.review.queue import find_review_queue, read_review_queue
from jobs.settings import RunSettings
from tests.database.conftest import SmallCatalog

DRIFT = RunSettings()


@pytest.mark.parametrize(("right", "of_all"), [(0, 1), (9, 10), (200, 200), (137, 212)])
def test_the_interval_is_wilson_s(right: int, of_all: int) -> None:
    wilson = binomtest(right, of_all).proportion_ci(0.95, method="wilson")
    estimate = estimate_share(right, of_all)
    assert (estimate.share, estimate.low, estimate.high) == pytest.approx((right / of_all, wilson.low, wilson.high))


def test_the_accuracy_of_a_catalog_with_known_truth(connection: Connection, catalog: SmallCatalog) -> None:
    random = np.random.default_rng(3)
    confidences = random.beta(5, 1.5, size=1_500)
    new = [NewImage(f"Q{n}", "dress", None, float(confidence)) for n, confidence in enumerate(confidences)]
    image_ids = add_images(connection, new, catalog.space_id, catalog.classifier)
    is_right = dict(zip(image_ids, random.random(1_500) < confidences, strict=True))
    truth = np.mean(list(is_right.values()))

    before = read_reviewed_accuracy(connection)
    assert before is not None
    assert (before.audited, before.audit) == (0, None)
    review_ids = []
    for reason, size in (("low_confidence", 150), ("audit", 120)):
        asked = read_review_queue(connection, find_review_queue(connection, DRIFT), reason, size)  # type: ignore[arg-type]
        answers = [
            Answer(item.image_id, item.reason, "dress" if is_right.get(item.image_id, True) else "hat")
            for item in asked
        ]
        review_ids += record_answers(connection, answers, "ann")
    accuracy = read_reviewed_accuracy(connection)
    assert accuracy is not None
    assert accuracy.audit is not None
    # Those of the hard ones that the audit would have drawn count in it.
    assert accuracy.audited > 125
    assert accuracy.skipped == 0
    assert accuracy.audit.low < truth < accuracy.audit.high

    for review_id in review_ids:
        undo_answer(connection, review_id, "ann")
    assert read_reviewed_accuracy(connection) == before


def test_skipped_images_are_counted(connection: Connection, catalog: SmallCatalog) -> None:
    asked = read_review_queue(connection, find_review_queue(connection, DRIFT), "audit", 10)
    record_answers(connection, [Answer(asked[2].image_id, "audit", "not clothing")], "ann")
    accuracy = read_reviewed_accuracy(connection)
    assert accuracy is not None
    assert accuracy.skipped == 2
    assert accuracy.audit is not None
    assert accuracy.audit.share < 1


def test_the_audit_is_counted_all_around_the_circle(connection: Connection, catalog: SmallCatalog) -> None:
    add_images(
        connection, [NewImage(f"Q{n}", "dress", None, 0.99) for n in range(60)], catalog.space_id, catalog.classifier
    )
    asked = read_review_queue(connection, find_review_queue(connection, DRIFT), "audit", 100)
    assert len(asked) > 60
    for answered, place in enumerate((0, 12, 24, 36, 48, len(asked) - 1)):
        record_answers(connection, [Answer(asked[place].image_id, "audit", "dress")], "ann")
        accuracy = read_reviewed_accuracy(connection)
        assert accuracy is not None
        assert accuracy.skipped == place - answered


def test_without_a_live_classifier_there_is_no_accuracy(connection: Connection) -> None:
    assert read_reviewed_accuracy(connection) is None
    assert connection.execute(text("SELECT count(*) FROM catalog.reviews")).scalar_one() == 0
