"""Check that invalid and oversized requests get a status and a reason, and that the service keeps running."""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from PIL import Image

from fixtures.shop import Shop, make_image
from jobs.errors import PermanentError
from jobs.serve.client import QueryClient
from tests.serve.conftest import RunningService, run_service
from tests.serve.stalled_requests import begin_image, read_status, send_image, stop_decoding

IMAGE_PATHS = ("/classify", "/embed-image")


def make_bomb() -> bytes:
    """Return a small PNG of 100 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bad_images() -> list[tuple[bytes, int, str]]:
    return [
        (b"", 422, "empty_file"),
        (b"<html>no image</html>", 422, "unsupported_format"),
        (make_image(1)[:-200], 422, "truncated"),
        (make_image(1, size=(4, 4)), 422, "too_small"),
        (make_bomb(), 422, "too_many_pixels"),
        (bytes(200_001), 413, "object_too_large"),
    ]


@pytest.mark.parametrize("path", IMAGE_PATHS)
def test_images_are_refused_with_the_reasons_of_the_nightly_run(
    live_shop: Shop, path: str, bad_images: list[tuple[bytes, int, str]]
) -> None:
    with run_service(live_shop.with_settings(max_object_bytes=200_000, max_pixels=1_000_000)) as service:
        service.wait_until_ready()
        for content, status, reason in bad_images:
            response = service.http.post(path, content=content)
            assert (response.status_code, response.json()["reason"]) == (status, reason)
        assert service.http.post(path, content=make_image(1)).status_code == 200
        metrics = service.read_metrics()
    assert metrics[f'catalog_query_requests_total{{path="{path}",status="422"}}'] == 5
    assert metrics[f'catalog_query_queue_length{{path="{path}"}}'] == 0


def test_a_body_without_a_length_is_cut_off(live_shop: Shop) -> None:
    def pour() -> Iterator[bytes]:
        # More than all buffers on the way can hold. The request ends only because the service stops reading.
        for _ in range(10_000):
            yield bytes(100_000)

    with run_service(live_shop.with_settings(max_object_bytes=200_000)) as service:
        service.wait_until_ready()
        response = service.http.post("/classify", content=pour())
        assert (response.status_code, response.json()["reason"]) == (413, "object_too_large")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"text": ""}),
        json.dumps({"text": " \n"}),
        json.dumps({"text": "x" * 2001}),
        json.dumps({"text": "ü" * 1001}),
        json.dumps({"text": "a\0b"}),
        '{"text": "\\ud800"}',
        json.dumps({"text": 7}),
        json.dumps(["text"]),
        "red dress",
        "",
    ],
    ids=str,
)
def test_invalid_texts_are_refused(service: RunningService, body: str) -> None:
    response = service.http.post("/embed-text", content=body)
    assert (response.status_code, response.json()["reason"]) == (422, "unfit_text")


def test_the_longest_text_is_embedded_in_any_script(service: RunningService) -> None:
    for text in ("x" * 2000, "ü" * 1000, "\U0001f452" * 500):
        assert service.http.post("/embed-text", content=json.dumps({"text": text})).status_code == 200
    assert service.http.post("/embed-text", content=bytes(20_000)).status_code == 413


def test_a_full_queue_refuses_and_says_when_to_retry(live_shop: Shop) -> None:
    image = make_image(1)
    with run_service(live_shop.with_settings(serve_queue_length=1)) as service:
        service.wait_until_ready()
        with stop_decoding() as resume, send_image(service, image) as client:
            # The request is refused before its body is complete.
            with begin_image(service, image) as late:
                assert read_status(late) == 503
            refused = service.http.post("/classify", content=image)
            assert (refused.status_code, refused.json()["reason"]) == (503, "queue_full")
            assert refused.headers["Retry-After"] == "1"
            # Each endpoint has its own queue.
            assert service.http.post("/embed-text", json={"text": "hat"}).status_code == 200
            resume()
            assert read_status(client) == 200
        assert service.http.post("/classify", content=image).status_code == 200


def test_a_request_past_its_deadline_is_dropped(live_shop: Shop) -> None:
    with run_service(live_shop.with_settings(serve_deadline_seconds=0.5)) as service:
        service.wait_until_ready()
        with begin_image(service, make_image(1)) as client:
            assert read_status(client) == 504
    with run_service(live_shop.with_settings(serve_deadline_seconds=1e-4)) as service:
        service.wait_until_ready()
        for path in IMAGE_PATHS:
            response = service.http.post(path, content=make_image(1))
            assert (response.status_code, response.json()["reason"]) == (504, "deadline")
        assert service.read_metrics()['catalog_query_queue_length{path="/classify"}'] == 0


def test_a_client_that_disconnects_frees_its_place(live_shop: Shop) -> None:
    with run_service(live_shop.with_settings(serve_queue_length=1)) as service:
        service.wait_until_ready()
        with begin_image(service, make_image(1)):
            pass
        left = 'catalog_query_requests_total{path="/classify",status="499"}'
        service.wait_until(lambda _: service.read_metrics().get(left) == 1)
        assert service.http.post("/classify", content=make_image(1)).status_code == 200


def test_slow_bodies_block_no_other_client(live_shop: Shop) -> None:
    image = make_image(1)
    with (
        run_service(live_shop.with_settings(serve_queue_length=4, serve_deadline_seconds=60)) as service,
        ExitStack() as clients,
    ):
        service.wait_until_ready()
        slow = [clients.enter_context(begin_image(service, image)) for _ in range(100)]
        assert service.http.post("/classify", content=image).status_code == 200
        slow[0].sendall(image[len(image) // 2 :])
        assert read_status(slow[0]) == 200


def test_the_token_is_checked_before_the_body_is_read(live_shop: Shop) -> None:
    image, token = make_image(1), "a token of these tests"
    with run_service(live_shop.with_settings(query_token=token)) as service:
        service.wait_until_ready()
        with begin_image(service, image) as stranger:
            assert read_status(stranger) == 401
        for words in ("", token, f"Bearer {token}x", "Bearer", "Basic x"):
            refused = service.http.post("/classify", content=image, headers={"Authorization": words})
            assert (refused.status_code, refused.json()["reason"]) == (401, "unknown_client")
        with QueryClient(service.url, token) as client:
            assert client.classify(image).top_3
        with QueryClient(service.url, "another token") as client, pytest.raises(PermanentError, match="QUERY_TOKEN"):
            client.classify(image)


def test_unknown_paths_are_not_found(service: RunningService) -> None:
    assert service.http.get("/classify").status_code == 405
    for path in ("/", "/docs", "/openapi.json"):
        assert service.http.get(path).status_code == 404


def test_another_host_name_is_refused(service: RunningService) -> None:
    """Prevent DNS rebinding, in which a web page makes its own host name point to this machine."""
    refused = service.http.post(
        "/embed-text", content=json.dumps({"text": "hat"}), headers={"Host": "elsewhere.example"}
    )
    assert refused.status_code == 400
    assert service.http.get("/health", headers={"Host": "localhost:1"}).status_code == 200
