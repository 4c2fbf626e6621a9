"""Format ``deepfashion-in-shop``: DeepFashion's In-Shop tree, with the list of its photos.

The list starts with the number of photos and a header; then each line is ``image_name item_id evaluation_status``,
such as ``img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg id_00000001 train``.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jobs.errors import PermanentError
from jobs.labelling.label_row import BadRow, LabelRow, RowFault, leaves_folder, make_row, show_text

FILE_NAME = "list_eval_partition.txt"
LIST_FOLDERS = ("", "Eval", "Anno")
PHOTO_FOLDERS = ("", "..", "Img", "../Img")
"""Below the list's folder, where ``img`` may lie."""


def find_partition_file(source: Path) -> Path | None:
    """The list: the file itself, or that of a folder."""
    if source.is_file():
        return source if source.name == FILE_NAME else None
    places = [source / folder / FILE_NAME for folder in LIST_FOLDERS]
    return next((place for place in places if place.is_file()), None)


def read_in_shop(source: Path) -> Iterator[LabelRow | BadRow]:
    """Yield the photos that the list names; the label is the folder above the item's, and the item is the group.

    A count that disagrees with the list is a bad row of the first line, which comes last.

    Raises:
        PermanentError: there is no list, or it does not start with a count and a header.
    """
    path = find_partition_file(source)
    if path is None:
        raise PermanentError(f"{source} holds no {FILE_NAME}: deepfashion-in-shop expects it beside img/")
    folder = next((path.parent / place for place in PHOTO_FOLDERS if (path.parent / place / "img").is_dir()), None)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        count, header = file.readline().strip(), file.readline().split()
        if header[:2] != ["image_name", "item_id"]:
            raise PermanentError(f"{path} must start with a line of the count and a line of image_name and item_id")
        rows = 0
        for line, text in enumerate(file, start=3):
            if text.strip():
                rows += 1
                yield _read_row(line, text.split(), folder or path.parent)
    if count != str(rows):
        yield BadRow(1, "", RowFault.WRONG_COUNT, f"says {show_text(count)[:40]!r} photos, but {rows} are listed")


def _read_row(line: int, fields: list[str], folder: Path) -> LabelRow | BadRow:
    if len(fields) != 3:
        return BadRow(line, "", RowFault.FIELD_COUNT, f"{len(fields)} fields instead of 3")
    name, item_id, _ = fields
    if leaves_folder(name):
        return BadRow(line, show_text(name), RowFault.OUTSIDE, "the image must be a path below the list's folder")
    folders = PurePosixPath(name).parts[:-1]
    if len(folders) < 3:
        return BadRow(line, show_text(name), RowFault.MALFORMED, "must look like img/WOMEN/Dresses/id_00000001/1.jpg")
    label, item_folder = folders[-2:]
    if item_folder != item_id:
        return BadRow(line, show_text(name), RowFault.MALFORMED, f"lies in {item_folder}, but is said to be {item_id}")
    return make_row(line, name, folder / name, label, group_name=item_id)
