"""Labels that were changed on purpose are found, and nothing is removed."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from jobs.evaluation.classifier_scores import ClassifierAnswers
from jobs.evaluation.evaluation_files import LabelSuspect, decode_label_suspects, encode_list
from jobs.evaluation.label_audit import audit_labels
from jobs.evaluation.served_model import load_served_model
from tests.evaluation.candidates import EXACT, load_part, make_labelled_set, write_classifier


def test_most_of_the_flipped_labels_stand_at_the_top(tmp_path: Path) -> None:
    labelled = make_labelled_set(train=12, validation=0, test=20)
    write_classifier(tmp_path, labelled)
    model = load_served_model(tmp_path, "classifier", EXACT)
    rows = labelled.snapshot.part("test")
    answers = ClassifierAnswers(model.predict(load_part(labelled, "test", model.geometry)), model.categories)
    others = dict(zip(model.categories, [*model.categories[1:], model.categories[0]], strict=True))
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
    labelled = make_labelled_set(train=0, validation=0, test=2)
    rows = labelled.snapshot.part("test")
    numbers = np.full((len(rows), 4), 0.25)
    assert audit_labels(rows, ClassifierAnswers(numbers, ("a", "b", "c", "d")), lambda row: "") == []
    unknown = ClassifierAnswers(np.full((len(rows), 4), np.nan), labelled.snapshot.categories)
    assert audit_labels(rows, unknown, lambda row: "") == []


def test_the_list_comes_back_from_its_file() -> None:
    suspects = [LabelSuspect("ab" * 32, "hat", "Größe", 0.25, None)]
    assert decode_label_suspects(encode_list(suspects)) == suspects
