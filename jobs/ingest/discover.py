"""Stage 1, discover: read a listing or inventory of the bucket, and record new, changed and vanished images."""

import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.images import (
    Discovery,
    ListedImage,
    ListingScope,
    ProductText,
    compare_listing,
    record_listing,
    record_product_texts,
    stage_listing,
)
from jobs.errors import RefusedError
from jobs.progress import SILENT, Progress
from jobs.storage.csv_records import BadRecord, CsvRecord, Header, read_csv_records
from jobs.storage.inventory import find_inventory, read_inventory
from jobs.storage.locations import S3Uri
from jobs.storage.object_store import ListedObject, ObjectStore

log = logging.getLogger(__name__)

PRODUCT_COLUMNS = {
    "image": ("image", "path", "file", "filename", "file name"),
    "description": ("description", "text"),
    "display name": ("display name", "display_name", "displayname", "title", "name"),
    "category": ("category", "label"),
}
"""The columns of the products file and the names accepted for each, ignoring case and surrounding spaces.

Only the first column is required. If another column is missing, the stored values stay unchanged.
"""
MAX_REPORTED_ROWS = 5

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Suffixes of images, ignoring case. Other keys are skipped."""
PRODUCTS_FILE = "products.csv"
"""The key of the products file, relative to the prefix."""


def discover_images(connection: Connection, connections: Connections, progress: Progress = SILENT) -> Discovery:
    """Compare the bucket with the catalog and record the differences, in the caller's transaction.

    Raises:
        RefusedError: more images vanished at once than the limit allows, or the inventory is too old. The caller must
            not commit.
    """
    store, source, settings = connections.store, connections.source, connections.settings
    listing = _Listing(connections)
    scope = listing.stage(connection, progress)
    progress.report("comparing the bucket with the catalog")
    discovery = compare_listing(connection, scope)
    _check_vanished(discovery, source, settings.runs.vanished_share_limit)
    record_listing(connection, scope)
    location = S3Uri(source.bucket, source.key + PRODUCTS_FILE)
    texts = read_product_texts(store, location, lambda image: listing.read_product_id(source.key + image))
    record_product_texts(connection, texts)
    return discovery


def discover_objects(connection: Connection, connections: Connections, keys: Sequence[str]) -> Discovery:
    """Compare single objects with the catalog and record the differences, in the caller's transaction.

    Keys that are not images in the source folder are ignored. Many images may vanish at once, because the bucket
    confirms that each of them is missing.
    """
    store, source = connections.store, connections.source
    listing = _Listing(connections)
    images = [key for key in keys if key.startswith(source.key) and listing.is_image(key)]
    with ThreadPoolExecutor(connections.settings.compute.read_threads) as pool:
        found = list(filter(None, pool.map(store.find, [S3Uri(source.bucket, key) for key in images])))
    stage_listing(connection, listing.select_images([found], "reading events", SILENT))
    scope = ListingScope(source.bucket, source.key, keys=tuple(images))
    discovery = compare_listing(connection, scope)
    record_listing(connection, scope)
    return discovery


class _Listing:
    """The images in the source folder."""

    def __init__(self, connections: Connections) -> None:
        self._store = connections.store
        self._source = connections.source
        settings = connections.settings
        self._inventory_uri = settings.locations.inventory_uri
        self._exclude_patterns = settings.images.exclude_patterns
        self._product_id = re.compile(settings.images.product_id_pattern)

    def stage(self, connection: Connection, progress: Progress) -> ListingScope:
        """Stage the latest inventory if a setting names one, otherwise a listing. Return what it covers."""
        source = self._source
        if self._inventory_uri is None:
            pages = self._store.list_pages(source)
            stage_listing(connection, self.select_images(pages, "listing the bucket", progress))
            return ListingScope(source.bucket, source.key)
        inventory = find_inventory(self._store, S3Uri.parse(self._inventory_uri).as_folder(), source.bucket)
        log.info("reading %s instead of listing the bucket", inventory.manifest)
        pages = read_inventory(self._store, inventory, source.key)
        stage_listing(connection, self.select_images(pages, "reading the inventory", progress))
        return ListingScope(source.bucket, source.key, as_of=inventory.created_at)

    def select_images(
        self, pages: Iterable[list[ListedObject]], stage: str, progress: Progress
    ) -> Iterator[list[ListedImage]]:
        """Yield the images of each page."""
        listed = 0
        for page in pages:
            listed += len(page)
            progress.report(stage, listed, unit="objects")
            yield [
                ListedImage(item.key, item.etag, item.size_bytes, self.read_product_id(item.key))
                for item in page
                if self.is_image(item.key)
            ]

    def is_image(self, key: str) -> bool:
        """Return whether a key below the source folder is that of an image."""
        relative = key.removeprefix(self._source.key)
        return key.lower().endswith(IMAGE_SUFFIXES) and not any(
            fnmatchcase(relative, pattern) for pattern in self._exclude_patterns
        )

    def read_product_id(self, key: str) -> str:
        """Match the pattern against the key below the source folder. A key without a match is its own product."""
        relative = key.removeprefix(self._source.key)
        match = self._product_id.search(relative)
        return (match["product_id"] if match else None) or relative


def _check_vanished(discovery: Discovery, source: S3Uri, limit: float) -> None:
    if discovery.vanished > limit * discovery.known:
        raise RefusedError(
            f"{discovery.vanished} of {discovery.known} known images are missing from {source}, more than the "
            f"{limit:.0%} of CATALOG_VANISHED_SHARE_LIMIT. Nothing was changed. If they were really removed, "
            "run once with a higher limit"
        )


def read_product_texts(store: ObjectStore, location: S3Uri, read_product_id: Callable[[str], str]) -> list[ProductText]:
    """Return the texts of each product from its first row, or an empty list if there is no file.

    Bad rows are skipped and logged. A file without an image column is ignored with a warning.
    """
    content = store.read_if_present(location)
    if content is None:
        return []
    # Postgres cannot store NUL. Invalid UTF-8 becomes lone surrogates, which make only their own row bad.
    text = content.replace(b"\0", b"").decode("utf-8-sig", errors="surrogateescape")
    header, records = read_csv_records(io.StringIO(text, newline=""))
    columns = [header.find(*names) for names in PRODUCT_COLUMNS.values()]
    if columns[0] is None:
        log.warning("the products file %s has no column image and is ignored", location)
        return []
    products: dict[str, ProductText] = {}
    errors: list[str] = []
    for record in records:
        error = _find_error(record, header)
        if error is not None or isinstance(record, BadRecord):
            errors.append(f"line {record.line}: {error}")
            continue
        image, description, name, category = (None if column is None else record.fields[column] for column in columns)
        product_id = read_product_id(str(image).strip())
        products.setdefault(product_id, ProductText(product_id, name, description, category))
    if errors:
        more = f"; and {len(errors) - MAX_REPORTED_ROWS} more" if len(errors) > MAX_REPORTED_ROWS else ""
        reported = "; ".join(errors[:MAX_REPORTED_ROWS])
        log.warning("%d rows of the products file %s were skipped: %s%s", len(errors), location, reported, more)
    return list(products.values())


def _find_error(record: CsvRecord | BadRecord, header: Header) -> str | None:
    if isinstance(record, BadRecord):
        return record.detail
    if len(record.fields) != len(header.names):
        return f"{len(record.fields)} fields instead of {len(header.names)}"
    if not all(_is_unicode(field) for field in record.fields):
        return "not valid UTF-8"
    return None


def _is_unicode(field: str) -> bool:
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True
