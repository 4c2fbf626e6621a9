"""Turn label rows into examples, one batch at a time: read, hash, decode, store."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from jobs.connections import Connections
from jobs.database.examples import Example, find_perceptual_hashes, upsert_examples
from jobs.images.decode import MIN_SIDE_PIXELS, DecodedImage, DecodeFailure, DecodeLimits, decode_image
from jobs.images.decode_pool import DecodePool
from jobs.images.perceptual_hash import DECODED_SIDE_PIXELS, perceptual_hash
from jobs.retrain.labels.label_row import LabelRow, SkippedRow, read_row_image
from jobs.storage.locations import example_location


@dataclass(frozen=True)
class ReadRow:
    """A row with the bytes of its image and their sha256."""

    row: LabelRow
    content: bytes
    content_hash: bytes


@dataclass(frozen=True)
class ExampleMaker:
    """Makes the examples of one import. All batches share its processes and threads."""

    connections: Connections
    source: str
    import_id: str
    decode: Callable[[Sequence[bytes]], Sequence[DecodedImage | DecodeFailure]]
    threads: ThreadPoolExecutor

    def make_examples(self, rows: Sequence[LabelRow]) -> list[Example | SkippedRow]:
        """Import a batch in one transaction. Return one result for each row, in the same order.

        The bytes are written to the artifacts before the examples that refer to them.

        Raises:
            RetryableError, PermanentError: the bucket or database is unavailable or misconfigured. Nothing is stored.
        """
        read = list(self.threads.map(self._read, rows))
        hashes = self._hash_images([row for row in read if isinstance(row, ReadRow)])
        results = [row if isinstance(row, SkippedRow) else self._make_example(row, hashes) for row in read]
        with self.connections.engine.begin() as connection:
            upsert_examples(connection, self.import_id, [one for one in results if isinstance(one, Example)])
        return results

    def _read(self, row: LabelRow) -> ReadRow | SkippedRow:
        content = read_row_image(self.connections.store, row, self.connections.settings.images.max_object_bytes)
        return content if isinstance(content, SkippedRow) else ReadRow(row, content, hashlib.sha256(content).digest())

    def _hash_images(self, rows: Sequence[ReadRow]) -> dict[bytes, bytes | DecodeFailure]:
        """Return perceptual hashes by content hash. Contents of earlier examples are not decoded again."""
        contents = {row.content_hash: row.content for row in rows}
        with self.connections.engine.connect() as connection:
            known = find_perceptual_hashes(connection, list(contents))
        new = [content_hash for content_hash in contents if content_hash not in known]
        decoded = dict(zip(new, self.decode([contents[key] for key in new]), strict=True))

        def store(content_hash: bytes) -> bytes | DecodeFailure:
            if content_hash in decoded:
                return self._store_new(contents[content_hash], content_hash, decoded[content_hash])
            self._restore(contents[content_hash], content_hash)
            return known[content_hash]

        return dict(zip(contents, self.threads.map(store, contents), strict=True))

    def _store_new(
        self, content: bytes, content_hash: bytes, decoded: DecodedImage | DecodeFailure
    ) -> bytes | DecodeFailure:
        if isinstance(decoded, DecodeFailure):
            return decoded
        self.connections.store.write(example_location(self.connections.artifacts, content_hash.hex()), content)
        return perceptual_hash(decoded.pixels)

    def _restore(self, content: bytes, content_hash: bytes) -> None:
        """Write the bytes of a known image again if the bucket lacks them or lists them with another ETag."""
        store, location = self.connections.store, example_location(self.connections.artifacts, content_hash.hex())
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        listed = (item for page in store.list_pages(location) for item in page)
        if not any(item.key == location.key and item.etag == etag for item in listed):
            store.write(location, content)

    def _make_example(self, read: ReadRow, hashes: dict[bytes, bytes | DecodeFailure]) -> Example | SkippedRow:
        row, image_hash = read.row, hashes[read.content_hash]
        if isinstance(image_hash, DecodeFailure):
            return SkippedRow(row.line, row.source_key, image_hash.reason, image_hash.detail)
        group = self._find_product(row.source_key) if row.group_name is None else row.group_name
        return Example(
            self.source, row.source_key, read.content_hash, image_hash, row.category, row.title, row.description, group
        )

    def _find_product(self, key: str) -> str:
        match = re.search(self.connections.settings.images.product_id_pattern, key)
        return (match["product_id"] if match else None) or key


@contextmanager
def open_example_maker(connections: Connections, source: str, import_id: str) -> Iterator[ExampleMaker]:
    """Open an `ExampleMaker` and stop its processes and threads at the end of the block."""
    settings = connections.settings
    limits = DecodeLimits(settings.images.max_pixels, MIN_SIDE_PIXELS, DECODED_SIDE_PIXELS)
    with (
        DecodePool(settings.compute.decode_processes) as decode_pool,
        ThreadPoolExecutor(settings.compute.read_threads, "import") as threads,
    ):
        decode = partial(decode_pool.decode, partial(decode_image, limits=limits))
        yield ExampleMaker(connections, source, import_id, decode, threads)
