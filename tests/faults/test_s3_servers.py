"""Use S3 endpoints that differ from AWS, and proxies in front of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fixtures.fault_proxy import (
    BROKEN_LISTINGS,
    FOREIGN_BODIES,
    HARMLESS,
    LINE,
    PAGE,
    Edit,
    FaultProxy,
    ProxiedResponse,
    edit_image,
    edit_listing,
    refuse,
    run_fault_proxy,
)
from fixtures.s3_server import S3Server
from fixtures.shop import Shop
from jobs.connections import Connections
from jobs.errors import PermanentError, RetryableError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.storage.object_store import ObjectStore

IMAGES = 12
TAGS = "SELECT count(*) FROM catalog.current_image_tags"
FAILURES = "SELECT reason, count(*) FROM catalog.item_failures WHERE resolved_at IS NULL GROUP BY 1"

pytestmark = pytest.mark.usefixtures("aws_keys")


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with run_fault_proxy(s3_server.url) as proxy:
        yield proxy


def through(proxy: FaultProxy, shop: Shop) -> Connections:
    return replace(shop.connections, store=ObjectStore(proxy.url))


@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_optional_response_fields_may_be_missing_or_unusual(edit: Edit, tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    proxy.edit = edit
    for expected in (IMAGES, 0):
        report = ingest(through(proxy, tagging_shop), IngestOptions())
        assert (report.tagged, report.failed) == (expected, 0)
    assert tagging_shop.query(TAGS) == [(IMAGES,)]


def test_the_later_page_wins_for_a_key_that_changes(tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    older = re.compile(rb"<ETag>.*?</ETag>")
    proxy.edit = edit_listing(
        lambda listing: LINE.sub(lambda line: older.sub(b"<ETag>&quot;old&quot;</ETag>", line[0]) + line[0], listing)
    )
    report = ingest(through(proxy, tagging_shop), IngestOptions())
    assert (report.tagged, report.failed) == (IMAGES, 0)


@pytest.mark.parametrize("edit", FOREIGN_BODIES.values(), ids=FOREIGN_BODIES)
def test_a_body_that_is_not_the_listed_object_fails_no_image(
    edit: Callable[[ProxiedResponse], ProxiedResponse], tagging_shop: Shop, proxy: FaultProxy
) -> None:
    keys = tagging_shop.put_images(IMAGES)
    proxy.edit = edit_image(lambda answer: answer if keys[0] in answer.path else edit(answer))
    with pytest.raises(RetryableError, match="differ from its listing"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query(FAILURES) == []
    proxy.edit = None
    ingest(tagging_shop.connections, IngestOptions())
    assert tagging_shop.query(TAGS) == [(IMAGES,)]


def test_a_body_that_is_wrong_once_is_read_again(tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    requested: Counter[str] = Counter()

    def replace_first(answer: ProxiedResponse) -> ProxiedResponse:
        requested[answer.path] += 1
        return replace(answer, content=PAGE) if requested[answer.path] == 1 else answer

    proxy.edit = edit_image(replace_first)
    report = ingest(through(proxy, tagging_shop), IngestOptions())
    assert (report.tagged, report.failed) == (IMAGES, 0)


@pytest.mark.parametrize("edit", BROKEN_LISTINGS.values(), ids=BROKEN_LISTINGS)
def test_an_incomplete_listing_changes_nothing(edit: Edit, tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    ingest(tagging_shop.connections, IngestOptions())
    proxy.edit = edit
    # In one of the cases, the server itself rejects the continuation token.
    with pytest.raises((RetryableError, PermanentError), match=r"listing|not S3|InvalidToken"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query("SELECT count(*) FROM catalog.images WHERE deleted_at IS NULL") == [(IMAGES,)]


def test_error_pages_end_the_job_after_a_few_images(tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES * 3)
    proxy.edit = edit_image(lambda answer: replace(answer, status=403, content=PAGE))
    with pytest.raises(RetryableError, match="error pages with status 403 that do not come from S3"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query(FAILURES) == []


def test_a_wrong_clock_ends_the_job(tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    proxy.edit = refuse(403, "RequestTimeTooSkewed")
    with pytest.raises(RetryableError, match="RequestTimeTooSkewed"):
        ingest(through(proxy, tagging_shop), IngestOptions())
    assert tagging_shop.query(FAILURES) == []


@pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_the_error_names_the_region_of_the_bucket(code: str, tagging_shop: Shop, proxy: FaultProxy) -> None:
    tagging_shop.put_images(IMAGES)
    proxy.edit = refuse(400, code, "<Region>eu-north-1</Region>")
    with pytest.raises(PermanentError, match=r"in eu-north-1\. Set AWS_REGION"):
        ingest(through(proxy, tagging_shop), IngestOptions())
