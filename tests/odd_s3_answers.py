"""What some S3 servers, and gateways before them, make of the answers of a correct one."""

import re
from collections.abc import Callable
from dataclasses import replace

from tests.fault_proxy import Edit, ProxiedAnswer

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>Please sign in.</p></body></html>"
LINE = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
ETAG = re.compile(rb"<ETag>.*?</ETag>")


def edit_listing(edit: Callable[[bytes], bytes]) -> Edit:
    return lambda answer: replace(answer, content=edit(answer.content)) if answer.is_listing else answer


def edit_photo(edit: Callable[[ProxiedAnswer], ProxiedAnswer]) -> Edit:
    return lambda answer: edit(answer) if ".jpg" in answer.path and not answer.is_listing else answer


def edit_etag(edit: Callable[[str], str]) -> Edit:
    def change(answer: ProxiedAnswer) -> ProxiedAnswer:
        etags = {name: edit(value) if name.lower() == "etag" else value for name, value in answer.headers.items()}
        return replace(answer, headers={name: value for name, value in etags.items() if value})

    return edit_photo(change)


def without_times(listing: bytes) -> bytes:
    return re.sub(rb"<LastModified>.*?</LastModified>", b"", ETAG.sub(b"", listing))


HARMLESS: dict[str, Edit] = {
    "a key twice": edit_listing(lambda listing: LINE.sub(lambda line: line[0] * 2, listing)),
    "no etag in the listing": edit_listing(lambda listing: ETAG.sub(b"", listing)),
    "neither etag nor time in the listing": edit_listing(without_times),
    "no size in the listing": edit_listing(lambda listing: re.sub(rb"<Size>.*?</Size>", b"", listing)),
    "no end in the listing": edit_listing(lambda listing: re.sub(rb"<IsTruncated>.*?</IsTruncated>", b"", listing)),
    "weak etags": edit_etag(lambda etag: f"W/{etag}"),
    "bare etags": edit_etag(lambda etag: etag.strip('"')),
    "etags in capitals": edit_etag(str.upper),
    "no etag with the photo": edit_etag(lambda _: ""),
}

FOREIGN_BODIES: dict[str, Callable[[ProxiedAnswer], ProxiedAnswer]] = {
    "half of it": lambda answer: replace(answer, content=answer.content[: len(answer.content) // 2]),
    "a page": lambda answer: replace(answer, content=PAGE, headers={"Content-Type": "text/html"}),
    "a changed byte": lambda answer: replace(answer, content=answer.content[:-9] + b"?" + answer.content[-8:]),
}

BROKEN_LISTINGS: dict[str, Edit] = {
    "a page": lambda answer: replace(answer, content=PAGE) if answer.is_listing else answer,
    "a page of XHTML": lambda answer: (
        replace(answer, content=b"<html><body><p>Please sign in.</p></body></html>") if answer.is_listing else answer
    ),
    "more, but not where": edit_listing(lambda listing: listing.replace(b"<IsTruncated>false<", b"<IsTruncated>true<")),
    "the same token for ever": edit_listing(
        lambda listing: listing.replace(
            b"<IsTruncated>false</IsTruncated>",
            b"<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>",
        )
    ),
}


def refuse(status: int, code: str, more: str = "") -> Edit:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so it is</Message>{more}</Error>".encode()
    return edit_photo(lambda answer: replace(answer, status=status, content=body))
