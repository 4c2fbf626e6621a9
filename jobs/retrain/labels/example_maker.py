"""From rows to examples, a batch at a time: read, decode, hash, keep the bytes, and store the labels."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from jobs.connections import Connections
from jobs.database.examples import Example, find_perceptual_hashes, upsert_examples
from jobs.images.decode import DecodedImage, DecodeFault, DecodeLimits, decode_image
from jobs.images.decode_pool import DecodePool
from jobs.images.perceptual_hash import DECODED_SIDE_PIXELS, perceptual_hash
from jobs.retrain.labels.label_row import BadRow, LabelRow, read_photo
from jobs.storage.layout import example_location


@dataclass(frozen=True)
class ReadPhoto:
    """A row with the bytes of its photo; ``content_hash`` is their sha256."""

    row: LabelRow
    content: bytes
    content_hash: bytes


@dataclass(frozen=True)
class ExampleMaker:
    """Makes the examples of one import; the pools are shared by all its batches."""

    connections: Connections
    source: str
    import_id: str
    decode: Callable[[Sequence[bytes]], Sequence[DecodedImage | DecodeFault]]
    threads: ThreadPoolExecutor

    def make_examples(self, rows: Sequence[LabelRow]) -> list[Example | BadRow]:
        """Import a batch in one transaction; what becomes of each row, in order.

        The bytes are in the artifacts before an example names them.

        Raises:
            RetryableError, PermanentError: bucket or database away or wrong; the batch is not stored.
        """
        photos = list(self.threads.map(self._read, rows))
        hashes = self._hash_photos([photo for photo in photos if isinstance(photo, ReadPhoto)])
        outcomes = [self._conclude(photo, hashes) for photo in photos]
        examples = [outcome for outcome in outcomes if isinstance(outcome, Example)]
        with self.connections.engine.begin() as connection:
            upsert_examples(connection, self.import_id, examples)
        return outcomes

    def _read(self, row: LabelRow) -> ReadPhoto | BadRow:
        content = read_photo(self.connections.store, row, self.connections.settings.max_object_bytes)
        return content if isinstance(content, BadRow) else ReadPhoto(row, content, hashlib.sha256(content).digest())

    def _hash_photos(self, photos: Sequence[ReadPhoto]) -> dict[bytes, bytes | DecodeFault]:
        """The perceptual hash of each content, by content hash; what earlier examples know is not decoded again."""
        contents = {photo.content_hash: photo.content for photo in photos}
        with self.connections.engine.connect() as connection:
            known = find_perceptual_hashes(connection, list(contents))
        new = [content_hash for content_hash in contents if content_hash not in known]
        decoded = dict(zip(new, self.decode([contents[key] for key in new]), strict=True))

        def finish(content_hash: bytes) -> bytes | DecodeFault:
            if content_hash in decoded:
                return self._finish_new(contents[content_hash], content_hash, decoded[content_hash])
            self._restore(contents[content_hash], content_hash)
            return known[content_hash]

        return dict(zip(contents, self.threads.map(finish, contents), strict=True))

    def _finish_new(
        self, content: bytes, content_hash: bytes, decoded: DecodedImage | DecodeFault
    ) -> bytes | DecodeFault:
        if isinstance(decoded, DecodeFault):
            return decoded
        self.connections.store.write(example_location(self.connections.artifacts, content_hash.hex()), content)
        return perceptual_hash(decoded.pixels)

    def _restore(self, content: bytes, content_hash: bytes) -> None:
        """Store the bytes of a known photo again, unless the bucket lists them as they are."""
        store, location = self.connections.store, example_location(self.connections.artifacts, content_hash.hex())
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        listed = (item for page in store.list_pages(location) for item in page)
        if not any(item.key == location.key and item.etag == etag for item in listed):
            store.write(location, content)

    def _conclude(self, photo: ReadPhoto | BadRow, hashes: dict[bytes, bytes | DecodeFault]) -> Example | BadRow:
        if isinstance(photo, BadRow):
            return photo
        row, look = photo.row, hashes[photo.content_hash]
        if isinstance(look, DecodeFault):
            return BadRow(row.line, row.source_key, look.reason, look.detail)
        group = self._name_product(row.source_key) if row.group_name is None else row.group_name
        return Example(
            self.source, row.source_key, photo.content_hash, look, row.category, row.title, row.description, group
        )

    def _name_product(self, key: str) -> str:
        match = re.search(self.connections.settings.product_id_pattern, key)
        return (match["product_id"] if match else None) or key


@contextmanager
def open_example_maker(connections: Connections, source: str, import_id: str) -> Iterator[ExampleMaker]:
    """An example maker whose processes and threads end with the block."""
    settings = connections.settings
    limits = DecodeLimits(settings.max_pixels, settings.min_side_pixels, DECODED_SIDE_PIXELS)
    with (
        DecodePool(settings.decode_processes) as decode_pool,
        ThreadPoolExecutor(settings.read_threads, "import") as threads,
    ):
        decode = partial(decode_pool.decode, partial(decode_image, limits=limits))
        yield ExampleMaker(connections, source, import_id, decode, threads)
