"""Check that a switch to another embedding space does not affect searches.

    python -m benchmarks.search.switch
    python -m benchmarks.search.switch --images 1000000 --clients 3 --switches 10

Two spaces contain different vectors of the same images. Clients search without a pause while the last step of a retag
switches back and forth: it locks out writers, checks that every image and text has a vector, and makes the space live.
A response is correct if all its similarities were computed from vectors of a single space, and if this space was live
at some time during the request.
"""

import argparse
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, exc, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import GeneratedCatalog, load_catalog, load_second_space, make_catalog
from benchmarks.search.recall import K, average_images, make_text_queries, open_database, store_texts
from jobs.database.engine import POOL_OVERFLOW, POOL_SIZE
from jobs.database.model_coverage import lock_for_switch
from jobs.database.spaces import read_space
from jobs.database.tagging_runs import RunModels
from jobs.retag.switch import find_missing_results, find_switches, read_live_models, switch_models

Rows = tuple[tuple[int, float], ...]
"""The best image of each product found, and its similarity."""

RARE = "a hundredth"
ROUNDING = 0.002
AFTERWARDS_SECONDS = 1.0
"""Requests this soon after a switch are a separate phase, because the new index may not be in memory yet."""


@dataclass(frozen=True)
class Plan:
    """The number of different queries, clients and switches, and the pause before each switch."""

    queries: int
    clients: int
    switches: int
    pause_seconds: float


@dataclass(frozen=True)
class Query:
    """A call of a search function, and its vector in each space."""

    call: str
    parameters: dict[str, Any]
    vectors: dict[int, np.ndarray]


@dataclass(frozen=True)
class Response:
    """The start and end of a request in seconds, and its rows or its error."""

    query: Query
    started: float
    ended: float
    rows: Rows = ()
    error: str | None = None


@dataclass(frozen=True)
class CheckedResponse:
    """A response. ``space`` is the space of all rows; None after an error, or if the rows mix spaces."""

    started: float
    ended: float
    rows: int
    space: int | None
    error: str | None = None


@dataclass(frozen=True)
class Switch:
    """The start and commit of a switch that makes ``space`` live."""

    started: float
    ended: float
    space: int


@dataclass(frozen=True)
class Phase:
    """The latencies of one phase. A request that overlaps with a switch belongs to the phase "during a switch"."""

    name: str
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class SwitchReport:
    """Counts of incorrect responses, and latencies.

    ``short`` counts responses with too few rows, ``mixed`` those with rows of both spaces, and ``stale`` those from a
    space that was not live.
    """

    images: int
    longest_switch_seconds: float
    requests: int
    errors: int
    error_examples: tuple[str, ...]
    short: int
    mixed: int
    stale: int
    phases: tuple[Phase, ...]


def main() -> None:
    """Measure and publish the result; end with an error if any response was incorrect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--clients", type=int, default=3, choices=range(1, POOL_SIZE + POOL_OVERFLOW))
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds before each switch")
    arguments = parser.parse_args()
    with open_database() as engine:
        catalogs = [make_catalog(arguments.images, seed) for seed in (0, 1)]
        load_catalog(engine, catalogs[0])
        load_second_space(engine, catalogs[1].vectors)
        plan = Plan(arguments.queries, arguments.clients, arguments.switches, arguments.pause)
        report = measure_switches(engine, catalogs, plan)
    publish(
        "Search while a new encoder goes live",
        f"{plan.clients} clients search {report.images:,} images without pause while the last step of a retag switches "
        f"between two embedding spaces {plan.switches} times. Latency is p50, p99 and maximum in ms.",
        [_make_row(report)],
        packages=["pgvector", "psycopg2-binary"],
    )
    if report.errors or report.short or report.mixed or report.stale:
        raise SystemExit(f"a switch was noticed: {report.error_examples}")


def measure_switches(engine: Engine, catalogs: Sequence[GeneratedCatalog], plan: Plan) -> SwitchReport:
    """Run every query in each space to load both into memory. Then search and switch concurrently."""
    targets = _read_targets(engine)
    spaces = {target.space_id: catalog.vectors for target, catalog in zip(targets, catalogs, strict=True)}
    queries = _make_queries(engine, targets, catalogs, plan.queries)
    for target in targets:
        _switch(engine, target)
        with _connect(engine) as connection:
            for query in queries:
                _search(connection, query)
    switches = []
    with _search_without_pause(engine, queries, plan.clients) as responses:
        for _, target in zip(range(plan.switches), cycle(targets), strict=False):
            time.sleep(plan.pause_seconds)
            switches.append(_switch(engine, target))
        time.sleep(plan.pause_seconds)
    checked = [check(one, spaces) for one in responses]
    return summarize(len(catalogs[0].vectors), targets[-1].space_id, switches, checked)


def _read_targets(engine: Engine) -> list[RunModels]:
    """Return the models of each space, the live one first."""
    with engine.connect() as connection:
        live = read_live_models(connection)
        assert live.classifier_version_id is not None
        ids = connection.execute(text("SELECT space_id FROM catalog.embedding_spaces ORDER BY state = 'live' DESC"))
        spaces = [read_space(connection, space_id) for space_id in ids.scalars()]
        return [RunModels(live.classifier_version_id, space.encoder_version_id, space.space_id) for space in spaces]


def _make_queries(
    engine: Engine, targets: Sequence[RunModels], catalogs: Sequence[GeneratedCatalog], number: int
) -> list[Query]:
    """Return queries of three kinds: by product, by product in a category, and by text that both encoders embedded."""
    random = np.random.default_rng(2)
    products = random.choice(catalogs[0].products, size=2 * (number // 3), replace=False)
    texts = number - len(products)
    vectors = {}
    with engine.begin() as connection:
        for target, catalog in zip(targets, catalogs, strict=True):
            by_text = make_text_queries(catalog, random, texts)
            store_texts(connection, target.space_id, by_text)
            vectors[target.space_id] = [*average_images(catalog, products), *(one.vector for one in by_text)]
    similar, searched = "similar_products(:of, :k, :category)", "search_products(:of, :k, :category)"
    calls = [
        *((similar, f"sku{product + 1}", RARE if place % 2 else None) for place, product in enumerate(products)),
        *((searched, f"text {number}", None) for number in range(texts)),
    ]
    queries = [
        Query(call, {"of": of, "k": K, "category": category}, {space: of_all[i] for space, of_all in vectors.items()})
        for i, (call, of, category) in enumerate(calls)
    ]
    random.shuffle(queries)
    return queries


def _switch(engine: Engine, target: RunModels) -> Switch:
    """Run the last step of a retag."""
    started = time.perf_counter()
    with engine.begin() as connection:
        lock_for_switch(connection)
        live = read_live_models(connection)
        switches = find_switches(live, target)
        lacking = find_missing_results(connection, target, switches)
        assert lacking is None, lacking
        switch_models(connection, target, live, switches, agreement=None, failed_share_limit=0)
    return Switch(started, time.perf_counter(), target.space_id)


@contextmanager
def _connect(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def _search(connection: Connection, query: Query) -> Rows:
    statement = text(f"SELECT image_id, similarity FROM catalog.{query.call}")
    return tuple((row.image_id, row.similarity) for row in connection.execute(statement, query.parameters))


@contextmanager
def _search_without_pause(engine: Engine, queries: Sequence[Query], clients: int) -> Iterator[list[Response]]:
    """Search until the end of the block, with a connection per client. The list is complete after the block."""
    responses: list[Response] = []
    stop = threading.Event()

    def search(client: int) -> None:
        with _connect(engine) as connection:
            for number in count(client * len(queries) // clients):
                if stop.is_set():
                    return
                responses.append(_time_query(connection, queries[number % len(queries)]))

    with ThreadPoolExecutor(clients) as threads:
        futures = [threads.submit(search, client) for client in range(clients)]
        try:
            yield responses
        finally:
            stop.set()
    for future in futures:
        future.result()


def _time_query(connection: Connection, query: Query) -> Response:
    started = time.perf_counter()
    try:
        rows = _search(connection, query)
    except exc.DBAPIError as error:
        return Response(query, started, time.perf_counter(), error=str(error.orig))
    return Response(query, started, time.perf_counter(), rows)


def check(response: Response, spaces: Mapping[int, np.ndarray]) -> CheckedResponse:
    """Find the space of a response. ``spaces`` contains the unit vectors of all images, with ids from 1."""
    images = np.array([image_id for image_id, _ in response.rows], dtype=int) - 1
    given = np.array([similarity for _, similarity in response.rows])
    found = None
    for space, vectors in spaces.items():
        wanted = response.query.vectors[space]
        true = vectors[images].astype(np.float32) @ wanted / np.linalg.norm(wanted)
        if response.error is None and np.abs(true - given).max(initial=0) < ROUNDING:
            found = space
    return CheckedResponse(response.started, response.ended, len(response.rows), found, response.error)


def summarize(
    images: int, first_space: int, switches: Sequence[Switch], checked: Sequence[CheckedResponse]
) -> SwitchReport:
    """Count incorrect responses, and group the latencies by phase."""
    errors = [one.error for one in checked if one.error is not None]
    complete = [one for one in checked if one.error is None]
    phases: dict[str, list[float]] = {"before": [], "during a switch": [], "just after": [], "between": []}
    for one in checked:
        phases[_name_phase(one, switches)].append(1000 * (one.ended - one.started))
    return SwitchReport(
        images=images,
        longest_switch_seconds=max(one.ended - one.started for one in switches),
        requests=len(checked),
        errors=len(errors),
        error_examples=tuple(sorted(set(errors))[:5]),
        short=sum(one.rows < K for one in complete),
        mixed=sum(one.space is None for one in complete),
        stale=sum(
            one.space is not None and one.space not in _list_live(one, first_space, switches) for one in complete
        ),
        phases=tuple(Phase(name, tuple(milliseconds)) for name, milliseconds in phases.items()),
    )


def _list_live(request: CheckedResponse, first_space: int, switches: Sequence[Switch]) -> set[int]:
    """Return the spaces that may have been live during a request. A switch commits at some time before its end."""
    committed = [first_space, *(one.space for one in switches if one.ended <= request.started)]
    return {committed[-1], *(one.space for one in switches if _overlaps(request, one))}


def _name_phase(request: CheckedResponse, switches: Sequence[Switch]) -> str:
    if any(_overlaps(request, one) for one in switches):
        return "during a switch"
    if request.ended <= switches[0].started:
        return "before"
    is_soon = any(0 <= request.started - one.ended < AFTERWARDS_SECONDS for one in switches)
    return "just after" if is_soon else "between"


def _overlaps(request: CheckedResponse, switch: Switch) -> bool:
    return request.started < switch.ended and switch.started < request.ended


def _make_row(report: SwitchReport) -> Row:
    row: dict[str, str | float | None] = {
        "searches": report.requests,
        "failed": report.errors,
        "too few rows": report.short,
        "two spaces mixed": report.mixed,
        "space no longer live": report.stale,
        "longest switch, s": round(report.longest_switch_seconds, 2),
    }
    for phase in report.phases:
        latencies = phase.milliseconds
        shown = [f"{value:.1f}" for value in np.percentile(latencies, [50, 99, 100])] if latencies else []
        row[f"{phase.name} ({len(latencies):,})"] = ", ".join(shown)
    return row


if __name__ == "__main__":
    main()
