"""Stage 1, discover: list the bucket and the products file, and record what is new, changed or gone."""

import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from sqlalchemy import Connection

from jobs.database.images import (
    Discovery,
    ListedImage,
    ProductText,
    compare_listing,
    record_listing,
    record_product_texts,
    stage_listing,
)
from jobs.errors import RefusedError
from jobs.progress import SILENT, Progress
from jobs.settings import Settings
from jobs.storage.csv_records import BadRecord, CsvRecord, Header, read_records
from jobs.storage.object_store import ListedObject, ObjectStore
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


@dataclass(frozen=True)
class DiscoverSettings:
    """What counts as an image, how its product is named, and when a shrinking bucket is suspicious.

    ``product_id_pattern`` is searched in the key below the source's prefix; a key that it does not match is a
    product of its own. ``products_file`` is a key below the prefix.
    """

    image_suffixes: tuple[str, ...]
    exclude_patterns: tuple[str, ...]
    product_id_pattern: str
    products_file: str
    vanished_share_limit: float

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The part of the configuration that concerns this stage."""
        images = settings.images
        return cls(
            images.image_suffixes,
            images.exclude_patterns,
            images.product_id_pattern,
            images.products_file,
            settings.runs.vanished_share_limit,
        )


def discover_images(
    connection: Connection,
    store: ObjectStore,
    source: S3Uri,
    settings: DiscoverSettings,
    progress: Progress = SILENT,
) -> Discovery:
    """Compare the bucket with the catalog and record the differences, in the caller's transaction.

    Raises:
        RefusedError: more images vanished at once than the limit allows; nothing should be committed.
    """
    pattern = re.compile(settings.product_id_pattern)
    stage_listing(connection, _list_images(store, source, settings, pattern, progress))
    progress.report("comparing the bucket with the catalog")
    discovery = compare_listing(connection, source.bucket, source.key)
    _check_vanished(discovery, source, settings.vanished_share_limit)
    record_listing(connection, source.bucket, source.key)
    if settings.products_file:
        location = S3Uri(source.bucket, source.key + settings.products_file)
        texts = read_product_texts(store, location, lambda image: _read_product_id(source.key + image, source, pattern))
        record_product_texts(connection, texts)
    return discovery


def _list_images(
    store: ObjectStore, source: S3Uri, settings: DiscoverSettings, pattern: re.Pattern[str], progress: Progress
) -> Iterator[list[ListedImage]]:
    listed = 0
    for page in store.list_pages(source):
        listed += len(page)
        progress.report("listing the bucket", listed, unit="objects")
        yield [
            ListedImage(item.key, item.etag, item.size_bytes, _read_product_id(item.key, source, pattern))
            for item in page
            if _is_wanted(item, source, settings)
        ]


def _is_wanted(item: ListedObject, source: S3Uri, settings: DiscoverSettings) -> bool:
    relative = item.key.removeprefix(source.key)
    return item.key.lower().endswith(settings.image_suffixes) and not any(
        fnmatchcase(relative, pattern) for pattern in settings.exclude_patterns
    )


def _read_product_id(key: str, source: S3Uri, pattern: re.Pattern[str]) -> str:
    relative = key.removeprefix(source.key)
    match = pattern.search(relative)
    return (match["product_id"] if match else None) or relative


def _check_vanished(discovery: Discovery, source: S3Uri, limit: float) -> None:
    if discovery.vanished > limit * discovery.known:
        raise RefusedError(
            f"{discovery.vanished} of {discovery.known} known images are missing from {source}, more than the "
            f"{limit:.0%} of CATALOG_VANISHED_SHARE_LIMIT: nothing was changed; if they were really removed, "
            "run once with a higher limit"
        )
