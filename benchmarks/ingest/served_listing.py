"""The listing of a made-up bucket, served on loopback in the pages of ListObjectsV2, by a process of its own."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

from jobs.local.ports import LOOPBACK

PAGE_KEYS = 1000
PHOTOS_PER_PRODUCT = 3
CHANGE_EVERY = 100
"""Of so many photos of a changed bucket one is gone, one has other bytes, and one is new beside them."""


@dataclass(frozen=True)
class MadeUpBucket:
    """Photos that differ by nothing but their number; keys are in the order of a bucket."""

    photos: int
    is_changed: bool

    def list_page(self, number: int) -> str:
        """The lines of a page; of a changed bucket, a page has as many new photos as it lacks."""
        start = number * PAGE_KEYS
        return "".join(self._list_photo(photo) for photo in range(start, min(start + PAGE_KEYS, self.photos)))

    def _list_photo(self, photo: int) -> str:
        key = f"photos/sku{photo // PHOTOS_PER_PRODUCT:07d}_{photo % PHOTOS_PER_PRODUCT + 1}"
        turn = photo % CHANGE_EVERY if self.is_changed else None
        if turn == 0:
            key += "_new"
        etag = f"{photo:016x}{'changed' if turn == 1 else '':0>16}"
        return (
            f"<Contents><Key>{key}.jpg</Key><LastModified>2026-01-31T12:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{100_000 + photo % 50_000}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


@contextmanager
def serve_listing(bucket: MadeUpBucket) -> Iterator[str]:
    """The URL of an endpoint that has this listing under any name, and no object to read."""
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


def _serve(bucket: MadeUpBucket, sender: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                self._answer(200, _format_page(bucket, int(query.get("continuation-token", ["0"])[0])))
            else:
                self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")

        def _answer(self, status: int, content: str) -> None:
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


def _format_page(bucket: MadeUpBucket, number: int) -> str:
    is_last = (number + 1) * PAGE_KEYS >= bucket.photos
    token = "" if is_last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>made-up</Name><Prefix>photos/</Prefix><MaxKeys>{PAGE_KEYS}</MaxKeys>"
        f"<IsTruncated>{str(not is_last).lower()}</IsTruncated>{token}{bucket.list_page(number)}</ListBucketResult>"
    )
