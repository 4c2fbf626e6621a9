"""Serve the listing of a generated bucket on loopback in a separate process, in pages like those of ListObjectsV2."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

from jobs.local.ports import LOOPBACK

PAGE_KEYS = 1000
IMAGES_PER_PRODUCT = 3
CHANGE_EVERY = 100
"""In a changed bucket, one in this many images is deleted, one has other bytes, and one is new."""


@dataclass(frozen=True)
class GeneratedBucket:
    """A bucket of images that differ only in their number. Keys are sorted, as in a real bucket."""

    images: int
    is_changed: bool

    def list_page(self, number: int) -> str:
        """Return the entries of a page. In a changed bucket, each page has as many new images as deleted ones."""
        start = number * PAGE_KEYS
        return "".join(self._list_image(image) for image in range(start, min(start + PAGE_KEYS, self.images)))

    def describe(self, image: int) -> tuple[str, str, int]:
        """Return the key, the etag and the size of an image."""
        key = f"images/sku{image // IMAGES_PER_PRODUCT:07d}_{image % IMAGES_PER_PRODUCT + 1}"
        turn = image % CHANGE_EVERY if self.is_changed else None
        if turn == 0:
            key += "_new"
        etag = f"{image:016x}{'changed' if turn == 1 else '':0>16}"
        return f"{key}.jpg", etag, 100_000 + image % 50_000

    def _list_image(self, image: int) -> str:
        key, etag, size = self.describe(image)
        return (
            f"<Contents><Key>{key}</Key><LastModified>2026-01-31T12:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


@contextmanager
def serve_listing(bucket: GeneratedBucket) -> Iterator[str]:
    """Yield the URL of an endpoint that returns the listing for any bucket name. It has no objects to download."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(bucket, sender), daemon=True)
    process.start()
    sender.close()
    try:
        yield f"http://{LOOPBACK}:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(bucket: GeneratedBucket, sender: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                self._respond(200, _format_page(bucket, int(query.get("continuation-token", ["0"])[0])))
            else:
                self._respond(404, "<Error><Code>NoSuchKey</Code></Error>")

        def _respond(self, status: int, content: str) -> None:
            body = content.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((LOOPBACK, 0), Handler) as server:
        sender.send(server.server_port)
        server.serve_forever()


def _format_page(bucket: GeneratedBucket, number: int) -> str:
    is_last = (number + 1) * PAGE_KEYS >= bucket.images
    token = "" if is_last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>generated</Name><Prefix>images/</Prefix><MaxKeys>{PAGE_KEYS}</MaxKeys>"
        f"<IsTruncated>{str(not is_last).lower()}</IsTruncated>{token}{bucket.list_page(number)}</ListBucketResult>"
    )
