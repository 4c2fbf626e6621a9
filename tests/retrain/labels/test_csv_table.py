from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.retrain.labels.csv_table import read_csv_table
from jobs.retrain.labels.label_row import BadRow, LabelRow, RowFault


def read(folder: Path, content: bytes | str) -> list[LabelRow | BadRow]:
    (folder / "labels.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_csv_table(folder))


def describe_bad(rows: list[LabelRow | BadRow]) -> list[tuple[int, str, RowFault]]:
    return [(row.line, row.source_key, row.reason) for row in rows if isinstance(row, BadRow)]  # type: ignore[misc]


def test_images_labels_texts_and_groups(tmp_path: Path) -> None:
    rows = read(tmp_path, 'image,label,text,group\nhat/1.jpg,hat,"A red hat, plain",sku1\n2.jpg,hat,,\n')
    assert rows == [
        LabelRow(2, "hat/1.jpg", tmp_path / "hat" / "1.jpg", "hat", "", "A red hat, plain", "sku1"),
        LabelRow(3, "2.jpg", tmp_path / "2.jpg", "hat", "", "", "2.jpg"),
    ]


def test_columns_of_other_names_in_another_order(tmp_path: Path) -> None:
    rows = read(tmp_path, "split,Label,title,description,contributor, path\ntrain,hat,Hat,A hat,c1,1.jpg\n")
    assert rows == [LabelRow(2, "1.jpg", tmp_path / "1.jpg", "hat", "Hat", "A hat", "c1")]


def test_a_spreadsheet_may_have_written_it(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffimage,label\r\n\r\nä.jpg, Hüte \r\n") == [
        LabelRow(3, "ä.jpg", tmp_path / "ä.jpg", "Hüte", "", "", "ä.jpg")
    ]


def test_quoted_texts_keep_commas_quotes_and_line_breaks_and_later_lines_their_numbers(tmp_path: Path) -> None:
    rows = read(tmp_path, 'image,label,text\n1.jpg,hat,"a ""hat"",\nred"\n2.jpg,,\n')
    assert isinstance(rows[0], LabelRow)
    assert rows[0].description == 'a "hat",\nred'
    assert describe_bad(rows) == [(4, "2.jpg", RowFault.NO_LABEL)]


def test_each_bad_row_is_named_with_its_line_and_the_others_come_through(tmp_path: Path) -> None:
    lines = [
        b"image,label,text",
        b"1.jpg,hat,",
        b"2.jpg, ,",
        b",hat,",
        b"4.jpg,hat",
        b"5.jpg,hat,a,b",
        "6.jpg,Hüte,".encode("latin-1"),
        b"../7.jpg,hat,",
        b"/etc/8.jpg,hat,",
        b"9.jpg,hat," + b"x" * 200_000,
        b"a" * 2000 + b".jpg,hat,",
        b"11.jpg,hat,\0NUL",
    ]
    rows = read(tmp_path, b"\n".join(lines))
    assert describe_bad(rows) == [
        (3, "2.jpg", RowFault.NO_LABEL),
        (4, "", RowFault.NO_IMAGE),
        (5, "", RowFault.FIELD_COUNT),
        (6, "", RowFault.FIELD_COUNT),
        (7, "6.jpg", RowFault.NOT_UTF8),
        (8, "../7.jpg", RowFault.OUTSIDE),
        (9, "/etc/8.jpg", RowFault.OUTSIDE),
        (10, "", RowFault.MALFORMED),
        (11, "a" * 1024, RowFault.MALFORMED),
    ]
    good = [row for row in rows if isinstance(row, LabelRow)]
    assert [(row.line, row.description) for row in good] == [(2, ""), (12, "NUL")]


def test_a_quote_left_open_spoils_its_own_line(tmp_path: Path) -> None:
    bad, good = read(tmp_path, 'image,label\n"1.jpg,hat\n2.jpg,hat\n')
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason) == (2, RowFault.MALFORMED)
    assert "lines 2 to 3: is a quote left open?" in bad.detail
    assert good == LabelRow(3, "2.jpg", tmp_path / "2.jpg", "hat", "", "", "2.jpg")


def test_a_quote_left_open_in_the_last_column_swallows_nothing(tmp_path: Path) -> None:
    rows = read(tmp_path, 'image,label,text\n1.jpg,hat,"a hat\n2.jpg,hat,"a ""red"" hat"\n3.jpg,hat,\n')
    assert describe_bad(rows) == [(2, "", RowFault.MALFORMED)]
    assert [row.source_key for row in rows if isinstance(row, LabelRow)] == ["2.jpg", "3.jpg"]
    rows = read(tmp_path, 'image,label,text\n1.jpg,hat,"a hat\n2.jpg,hat,plain\n')
    assert describe_bad(rows) == [(2, "", RowFault.MALFORMED)]
    assert [row.source_key for row in rows if isinstance(row, LabelRow)] == ["2.jpg"]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    rows = read(tmp_path, end.join(["image,label", "1.jpg,hat", "2.jpg,hat", ""]))
    assert [row.source_key for row in rows] == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    "content",
    [b"image,category\n1.jpg,hat\n", b"", "image,label\n1.jpg,hat\n".encode("utf-16"), b"image;label\n1.jpg;hat\n"],
)
def test_a_table_without_the_columns_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PermanentError, match=r"labels\.csv lacks the columns image and label"):
        read(tmp_path, content)


def test_the_file_may_be_named_or_be_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("image,label\n1.jpg,hat\n")
    assert list(read_csv_table(tmp_path)) == list(read_csv_table(tmp_path / "mine.csv")) != []
    (tmp_path / "other.csv").touch()
    with pytest.raises(PermanentError, match="holds 2 CSV files"):
        next(read_csv_table(tmp_path))


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("image,label\n")
        file.writelines(f"{number}.jpg,hat\n" for number in range(100_000))
    rows = read_csv_table(tmp_path)
    assert isinstance(rows, Iterator)
    assert len(list(islice(rows, 10))) == 10
    # What was not asked for yet is not in memory either.
    (tmp_path / "labels.csv").write_text("")
    assert len(list(rows)) < 50_000
