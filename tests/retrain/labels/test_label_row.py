"""What becomes of the texts of a row."""

from pathlib import Path

import pytest

from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault, make_row

LOOKALIKES = (
    "robe d'été",
    "robe d'e\u0301te\u0301",
    " robe  d'été\t",
    "robe\u00a0d'été",
    "robe\u2009d'\u200bété",
    "\ufeffrobe d'été\u2060",
    "robe\nd'\u00adété\x07",
)


def test_categories_that_look_the_same_are_the_same() -> None:
    rows = [make_row(1, "1.jpg", Path("1.jpg"), category) for category in LOOKALIKES]
    assert {row.category for row in rows if isinstance(row, LabelRow)} == {"robe d'été"}
    assert all(isinstance(row, LabelRow) for row in rows)


@pytest.mark.parametrize("category", ["", " ", "\u200b", "nan", "NaN", "NULL", "None", "N/A", "-", "#N/A", "?"])
def test_what_stands_for_a_missing_label_is_none(category: str) -> None:
    row = make_row(1, "1.jpg", Path("1.jpg"), category)
    assert isinstance(row, BadRow)
    assert row.reason is RowFault.NO_LABEL


@pytest.mark.parametrize("category", ["nana", "nullpunkt", "t-shirt", "no-show socks"])
def test_what_only_begins_so_is_a_label(category: str) -> None:
    assert isinstance(make_row(1, "1.jpg", Path("1.jpg"), category), LabelRow)


def test_a_name_with_a_nul_is_no_image() -> None:
    row = make_row(1, "a\0.jpg", Path("a\0.jpg"), "hat")
    assert isinstance(row, BadRow)
    assert (row.source_key, row.reason) == ("a.jpg", RowFault.MALFORMED)
