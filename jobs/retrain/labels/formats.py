"""The formats in which labels come, each with its reader; to add one is to add a line."""

from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.errors import PermanentError
from jobs.retrain.labels.csv_table import read_csv_table
from jobs.retrain.labels.deepfashion import read_deepfashion, read_in_shop
from jobs.retrain.labels.fashion_products import read_fashion_products
from jobs.retrain.labels.folders import read_folders
from jobs.retrain.labels.label_row import BadRow, LabelRow

Reader = Callable[[Path], Iterator[LabelRow | BadRow]]
"""Yields the rows of a folder or file as it reads them; never holds them all."""

READERS: dict[str, Reader] = {
    "folders": read_folders,
    "csv": read_csv_table,
    "fashion-products": read_fashion_products,
    "deepfashion": read_deepfashion,
    "deepfashion-in-shop": read_in_shop,
}


def read_rows(format_name: str, source: Path) -> Iterator[LabelRow | BadRow]:
    """The rows of a folder or file.

    Raises:
        PermanentError: no such format or source, or, while rows are read, the source is not in that format.
    """
    reader = READERS.get(format_name)
    if reader is None:
        raise PermanentError(f"there is no format {format_name!r}: choose one of {', '.join(READERS)}")
    if not source.exists():
        raise PermanentError(f"{source} does not exist")
    return reader(source)
