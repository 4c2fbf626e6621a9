"""What the shop says of its products: a CSV file beside the photos, written by people and spreadsheets."""

import io
import logging
from collections.abc import Callable

from jobs.csv_records import BadRecord, CsvRecord, Header, read_records
from jobs.database.images import ProductText
from jobs.storage.object_store import ObjectStore
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)

COLUMNS = {
    "image": ("image", "path", "file", "filename", "file name"),
    "description": ("description", "text"),
    "display name": ("display name", "display_name", "displayname", "title", "name"),
    "category": ("category", "label"),
}
"""The columns, each with the names that it may have, in any case and with any space around them.

All but the first may be missing: what they would say stays as it is.
"""
MAX_REPORTED_ROWS = 5


def read_product_texts(store: ObjectStore, location: S3Uri, read_product_id: Callable[[str], str]) -> list[ProductText]:
    """Read one text for each product, that of its first row; none when there is no file.

    Rows that are wrong are skipped, and so is a file that names no images: photos are tagged all the same.
    """
    content = store.read_if_present(location)
    if content is None:
        return []
    # Postgres holds no NUL in a text. Bytes that are no UTF-8 become lone surrogates, which spoil their own row only.
    text = content.replace(b"\0", b"").decode("utf-8-sig", errors="surrogateescape")
    header, records = read_records(io.StringIO(text, newline=""))
    places = [header.find(*names) for names in COLUMNS.values()]
    if places[0] is None:
        log.warning("the products file %s has no column image and is ignored", location)
        return []
    products: dict[str, ProductText] = {}
    faults: list[str] = []
    for record in records:
        fault = _find_fault(record, header)
        if fault is not None or isinstance(record, BadRecord):
            faults.append(f"line {record.line}: {fault}")
            continue
        image, description, name, category = (None if place is None else record.fields[place] for place in places)
        product_id = read_product_id(str(image).strip())
        products.setdefault(product_id, ProductText(product_id, name, description, category))
    _tell(faults, location)
    return list(products.values())


def _find_fault(record: CsvRecord | BadRecord, header: Header) -> str | None:
    if isinstance(record, BadRecord):
        return record.detail
    if len(record.fields) != len(header.names):
        return f"{len(record.fields)} fields instead of {len(header.names)}"
    if not all(_is_text(field) for field in record.fields):
        return "it is no UTF-8"
    return None


def _is_text(field: str) -> bool:
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tell(faults: list[str], location: S3Uri) -> None:
    if faults:
        more = f"; and {len(faults) - MAX_REPORTED_ROWS} more" if len(faults) > MAX_REPORTED_ROWS else ""
        log.warning(
            "%d rows of the products file %s were skipped: %s%s",
            len(faults),
            location,
            "; ".join(faults[:MAX_REPORTED_ROWS]),
            more,
        )
