"""Test how the service follows the live models: before the first, during a switch, and without a database."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fixtures.champions import make_champion
from fixtures.postgres import execute
from fixtures.shop import Shop, TinyModels, make_image
from jobs.connections import connect
from jobs.database.model_builds import list_builds
from jobs.database.promotions import Switch, insert_switch
from jobs.database.spaces import create_space_index, make_space_live, open_space
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retag.rollback import roll_back
from jobs.serve import follower
from jobs.serve.client import QueryClient
from jobs.storage.locations import S3Uri
from tests.serve.conftest import RunningService, go_live, run_service


@pytest.fixture
def live_shop(tagging_shop: Shop) -> Shop:
    """Set up a shop for a single test, which may change its models."""
    return go_live(tagging_shop)


@pytest.fixture
def service(live_shop: Shop) -> Iterator[RunningService]:
    """Run a service for this shop, and wait until it is ready."""
    with run_service(live_shop.connections) as service:
        service.wait_until_ready()
        yield service


@contextmanager
def send_without_pause(send: Callable[[], int]) -> Iterator[Counter[int]]:
    """Run three clients during the block, and count their results by model version. A failed request fails the test."""
    answered: Counter[int] = Counter()
    stop = threading.Event()

    def send_on() -> None:
        while not stop.is_set():
            answered[send()] += 1

    with ThreadPoolExecutor(3) as threads:
        futures: list[Future[None]] = [threads.submit(send_on) for _ in range(3)]
        try:
            yield answered
        finally:
            stop.set()
    for future in futures:
        future.result()


def switch_encoder(shop: Shop, folder: Path) -> int:
    """Make another encoder live with an empty space, and return its version."""
    version = make_champion(shop.connections, folder, "encoder")
    with shop.connections.engine.begin() as connection:
        space_id = open_space(connection, version.model_version_id, version.vector_dimensions)
        create_space_index(connection, space_id)
        make_space_live(connection, space_id)
    return version.model_version_id


def test_it_waits_for_the_first_models_and_names_them(tagging_shop: Shop) -> None:
    with run_service(tagging_shop.connections) as service, QueryClient(service.url) as client:
        # The first classifier goes live with its promotion, and the first space when a run is published.
        service.wait_until(lambda health: health.get("detail", "").startswith("no embedding space is live yet"))
        assert service.http.get("/health").status_code == 503
        assert client.classify(make_image(1)).category
        refused = service.http.post("/embed-image", content=make_image(1))
        assert (refused.status_code, refused.json()["reason"]) == (503, "no_live_model")
        assert refused.headers["Retry-After"] == "1"

        tagging_shop.put_images(2)
        ingest(tagging_shop.connections, IngestOptions())
        health = service.wait_until_ready()
        assert service.http.get("/health").status_code == 200
        assert client.embed_text("hat").model_version_id == health["encoder"]


def test_a_catalog_without_a_classifier_is_searchable_and_its_first_classifier_is_followed(
    shop: Shop, tiny_models: TinyModels
) -> None:
    make_champion(shop.connections, tiny_models.encoder, "encoder")
    shop.put_images(2)
    ingest(shop.connections, IngestOptions())
    with run_service(shop.connections) as service, QueryClient(service.url) as client:
        health = service.wait_until_ready()
        assert health == {"classifier": None, "encoder": client.embed_text("hat").model_version_id}
        assert client.embed_image(make_image(1)).model_version_id == health["encoder"]
        refused = service.http.post("/classify", content=make_image(1))
        assert (refused.status_code, refused.json()) == (
            503,
            {
                "reason": "no_live_model",
                "detail": "no classifier is live yet: run `catalog retrain` first",
            },
        )
        first = make_champion(shop.connections, tiny_models.classifier, "classifier")
        service.wait_until(lambda health: health.get("classifier") == first.model_version_id)
        assert client.classify(make_image(1)).category


def test_it_waits_for_the_schema(empty_database_url: str, shop: Shop) -> None:
    settings = shop.with_settings(database_url=empty_database_url).settings
    with connect(settings) as connections, run_service(connections) as service:
        service.wait_until(lambda health: "catalog migrate" in health.get("detail", ""))
        assert service.http.get("/health").status_code == 503


def test_a_promotion_and_a_rollback_fail_no_request(
    service: RunningService, live_shop: Shop, tiny_models: TinyModels
) -> None:
    first = service.read_health()["classifier"]
    with (
        QueryClient(service.url) as client,
        send_without_pause(lambda: client.classify(make_image(1)).model_version_id) as answered,
    ):
        other = make_champion(live_shop.connections, tiny_models.other_classifier, "classifier", is_live=True)
        second = other.model_version_id
        service.wait_until(lambda health: health["classifier"] == second and answered[second] > 5)
        assert roll_back(live_shop.connections, "classifier").model_version_id == first
        before = answered[first]
        service.wait_until(lambda health: health["classifier"] == first and answered[first] > before + 5)
    assert set(answered) == {first, second}
    assert service.read_metrics()['catalog_query_live_version{kind="classifier"}'] == first


def test_another_space_fails_no_request(service: RunningService, live_shop: Shop, tiny_models: TinyModels) -> None:
    first = service.read_health()["encoder"]
    with QueryClient(service.url) as client:
        before = client.embed_image(make_image(1))
        with (
            send_without_pause(lambda: client.embed_image(make_image(1)).model_version_id) as images,
            send_without_pause(lambda: client.embed_text("hat").model_version_id) as texts,
        ):
            second = switch_encoder(live_shop, tiny_models.other_encoder)
            service.wait_until(lambda _: images[second] > 5 and texts[second] > 5)
        after = client.embed_image(make_image(1))
    assert set(images) == set(texts) == {first, second}
    assert (before.space_id, before.vector) != (after.space_id, after.vector)
    assert live_shop.query("SELECT catalog.live_space()") == [(after.space_id,)]


def test_it_serves_without_the_database_and_follows_again(
    service: RunningService, live_shop: Shop, tiny_models: TinyModels, postgres_server: str
) -> None:
    first = service.read_health()["classifier"]
    name = make_url(live_shop.environment["CATALOG_DATABASE_URL"]).database
    live_shop.connections.engine.dispose()
    execute(
        postgres_server,
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        health = service.wait_until(lambda health: "trouble" in health)
        assert (health["classifier"], service.http.get("/health").status_code) == (first, 200)
        with QueryClient(service.url) as client:
            assert client.classify(make_image(1)).model_version_id == first
    finally:
        execute(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    other = make_champion(live_shop.connections, tiny_models.other_classifier, "classifier", is_live=True)
    service.wait_until(lambda health: health["classifier"] == other.model_version_id and "trouble" not in health)


def test_a_version_that_does_not_load_is_reported_and_the_previous_one_serves(
    service: RunningService, live_shop: Shop, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.0)
    connections, first = live_shop.connections, service.read_health()["classifier"]
    version = make_champion(connections, tiny_models.other_classifier, "classifier")
    with connections.engine.connect() as connection:
        (build,) = list_builds(connection, version.model_version_id)
    weights = S3Uri.parse(f"{build.artifact_uri}/model.safetensors")
    whole = connections.store.read(weights)
    connections.store.write(weights, b"{}")
    with connections.engine.begin() as connection:
        insert_switch(connection, Switch("classifier", version.model_version_id, first))
    health = service.wait_until(lambda health: "do not match the registered hash" in health.get("trouble", ""))
    assert health["classifier"] == first
    with QueryClient(service.url) as client:
        assert client.classify(make_image(1)).model_version_id == first
    connections.store.write(weights, whole)
    service.wait_until(lambda health: health["classifier"] == version.model_version_id and "trouble" not in health)
