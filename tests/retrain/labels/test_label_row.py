from pathlib import Path

import pytest

from jobs.retrain.labels.label_row import LabelRow, SkippedRow, SkipReason, make_row

LOOKALIKES = (
    "robe d'été",
    "robe d'e\u0301te\u0301",
    " robe  d'été\t",
    "robe\u00a0d'été",
    "robe\u2009d'\u200bété",
    "\ufeffrobe d'été\u2060",
    "robe\nd'\u00adété\x07",
)


def test_lookalike_categories_become_one() -> None:
    rows = [make_row(1, "1.jpg", Path("1.jpg"), category) for category in LOOKALIKES]
    assert {row.category for row in rows if isinstance(row, LabelRow)} == {"robe d'été"}
    assert all(isinstance(row, LabelRow) for row in rows)


@pytest.mark.parametrize("category", ["", " ", "\u200b", "nan", "NaN", "NULL", "None", "N/A", "-", "#N/A", "?"])
def test_skips_values_that_stand_for_a_missing_label(category: str) -> None:
    row = make_row(1, "1.jpg", Path("1.jpg"), category)
    assert isinstance(row, SkippedRow)
    assert row.reason is SkipReason.NO_LABEL


@pytest.mark.parametrize("category", ["nana", "nullpunkt", "t-shirt", "no-show socks"])
def test_accepts_labels_that_start_like_a_missing_value(category: str) -> None:
    assert isinstance(make_row(1, "1.jpg", Path("1.jpg"), category), LabelRow)


def test_skips_image_name_with_nul_character() -> None:
    row = make_row(1, "a\0.jpg", Path("a\0.jpg"), "hat")
    assert isinstance(row, SkippedRow)
    assert (row.source_key, row.reason) == ("a.jpg", SkipReason.MALFORMED)
