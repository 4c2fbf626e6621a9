"""Stage 1: list the bucket and bring the catalog's images in line with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Self

from sqlalchemy import Connection

from jobs.database.images import (
    Discovery,
    ListedImage,
    compare_listing,
    record_listing,
    record_product_texts,
    stage_listing,
)
from jobs.errors import PermanentError
from jobs.progress import SILENT, Progress
from jobs.settings import Settings
from jobs.storage.object_store import ListedObject, ObjectStore
from jobs.storage.uri import S3Uri
from jobs.tagging.products_file import read_product_texts


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
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def discover_images(
    connection: Connection,
    store: ObjectStore,
    source: S3Uri,
    settings: DiscoverSettings,
    progress: Progress = SILENT,
) -> Discovery:
    """Compare the bucket with the catalog and record the differences, in the caller's transaction.

    Raises:
        PermanentError: more images vanished at once than the limit allows; nothing should be committed.
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
        raise PermanentError(
            f"{discovery.vanished} of {discovery.known} known images are missing from {source}, more than the "
            f"{limit:.0%} of CATALOG_VANISHED_SHARE_LIMIT: nothing was changed; if they were really removed, "
            "run once with a higher limit"
        )
