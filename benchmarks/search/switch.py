"""Whether searches notice that another space goes live: they are asked without pause while the live space is switched.

    python -m benchmarks.search.switch
    python -m benchmarks.search.switch --images 1000000 --clients 3 --switches 10

Two spaces hold other vectors of the same photos. Clients ask, and the last step of a retag switches to and fro: it
locks out writers, counts that no image and no text lacks an answer, and makes the space live. An answer is right if all
its similarities are those of the question's vector and the photos' vectors in one space, the one that was live when the
question was put, or that went live before it was answered.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, exc, text

from benchmarks.machine import name_processor
from benchmarks.search.load_catalog import load_catalog, load_second_space
from benchmarks.search.made_up_vectors import MadeUpCatalog, make_catalog
from benchmarks.search.recall import K, ask_texts, average_photos, open_database, store_texts
from jobs.database.engine import POOL_OVERFLOW, POOL_SIZE
from jobs.database.model_coverage import lock_for_switch
from jobs.database.spaces import read_space
from jobs.database.tagging_runs import RunModels
from jobs.retag.switch import find_incompleteness, find_switches, read_live_models, switch_models
from jobs.settings import PROJECT_ROOT

Rows = tuple[tuple[int, float], ...]
"""The best photo of each product that was found, and its similarity."""

RARE = "a hundredth"
ROUNDING = 0.002
AFTERWARDS_SECONDS = 1.0
"""What is asked so soon after a switch counts as after it: by then the new index may not be in memory."""


@dataclass(frozen=True)
class Plan:
    """How many clients ask how many different questions, and how often the space is switched, each after a pause."""

    questions: int
    clients: int
    switches: int
    pause_seconds: float


@dataclass(frozen=True)
class Question:
    """A call of a search function, and the vector that it stands for in each space."""

    call: str
    parameters: dict[str, Any]
    vectors: dict[int, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """When a question was put and answered, in seconds; ``failure`` stands where there are no rows."""

    question: Question
    started: float
    ended: float
    rows: Rows = ()
    failure: str | None = None


@dataclass(frozen=True)
class Judged:
    """``space`` is the one that the rows are of, None for an answer of none and for a failure."""

    started: float
    ended: float
    rows: int
    space: int | None
    failure: str | None = None


@dataclass(frozen=True)
class Switched:
    """When a switch began and was committed; ``space`` answers from then on."""

    started: float
    ended: float
    space: int


@dataclass(frozen=True)
class Phase:
    """What clients saw at one time; a question belongs to the switch during any part of which it was open."""

    name: str
    questions: int
    p50_milliseconds: float | None
    p99_milliseconds: float | None
    longest_milliseconds: float | None


@dataclass(frozen=True)
class SwitchReport:
    """``short`` counts answers of fewer rows than were asked for, ``mixed`` those that are of neither space as a
    whole, ``stale`` those of a space that was not live by then.
    """

    images: int
    clients: int
    switches: int
    longest_switch_seconds: float
    questions: int
    failures: int
    failure_examples: tuple[str, ...]
    short: int
    mixed: int
    stale: int
    phases: tuple[Phase, ...]


def main() -> None:
    """Measure, print a table, write JSON; anything but right answers ends in an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--clients", type=int, default=3, choices=range(1, POOL_SIZE + POOL_OVERFLOW))
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds before each switch")
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-switch.json")
    arguments = parser.parse_args()
    with open_database() as engine:
        catalogs = [make_catalog(arguments.images, seed) for seed in (0, 1)]
        load_catalog(engine, catalogs[0])
        load_second_space(engine, catalogs[1].vectors)
        plan = Plan(arguments.questions, arguments.clients, arguments.switches, arguments.pause)
        report = measure_switches(engine, catalogs, plan)
    summary = {"cores": len(os.sched_getaffinity(0)), "processor": name_processor(), **asdict(report)}
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))
    _print_report(report)
    if report.failures or report.short or report.mixed or report.stale:
        raise SystemExit("the switch was noticed")


def measure_switches(engine: Engine, catalogs: Sequence[MadeUpCatalog], plan: Plan) -> SwitchReport:
    """Ask everything once in each space, so that both are in memory; then ask and switch at once."""
    targets = _read_targets(engine)
    spaces = {target.space_id: catalog.vectors for target, catalog in zip(targets, catalogs, strict=True)}
    questions = _make_questions(engine, targets, catalogs, plan.questions)
    for target in targets:
        _switch(engine, target)
        with _connect(engine) as connection:
            for question in questions:
                _ask(connection, question)
    switches = []
    with _ask_without_pause(engine, questions, plan.clients) as asked:
        for _, target in zip(range(plan.switches), cycle(targets), strict=False):
            time.sleep(plan.pause_seconds)
            switches.append(_switch(engine, target))
        time.sleep(plan.pause_seconds)
    judged = [judge(one, spaces) for one in asked]
    return summarise(len(catalogs[0].vectors), plan.clients, targets[-1].space_id, switches, judged)


def _read_targets(engine: Engine) -> list[RunModels]:
    """The models of each space, the live one first."""
    with engine.connect() as connection:
        live = read_live_models(connection)
        assert live.classifier_version_id is not None
        ids = connection.execute(text("SELECT space_id FROM catalog.embedding_spaces ORDER BY state = 'live' DESC"))
        spaces = [read_space(connection, space_id) for space_id in ids.scalars()]
        return [RunModels(live.classifier_version_id, space.encoder_version_id, space.space_id) for space in spaces]


def _make_questions(
    engine: Engine, targets: Sequence[RunModels], catalogs: Sequence[MadeUpCatalog], number: int
) -> list[Question]:
    """A third each: like a product, like a product in a category, by a text that both encoders have embedded."""
    random = np.random.default_rng(2)
    products = random.choice(catalogs[0].products, size=2 * (number // 3), replace=False)
    texts = number - len(products)
    vectors = {}
    with engine.begin() as connection:
        for target, catalog in zip(targets, catalogs, strict=True):
            asked = ask_texts(catalog, random, texts)
            store_texts(connection, target.space_id, asked)
            vectors[target.space_id] = [*average_photos(catalog, products), *(one.vector for one in asked)]
    similar, searched = "similar_products(:of, :k, :category)", "search_products(:of, :k, :category)"
    calls = [
        *((similar, f"sku{product + 1}", RARE if place % 2 else None) for place, product in enumerate(products)),
        *((searched, f"text {number}", None) for number in range(texts)),
    ]
    questions = [
        Question(
            call, {"of": of, "k": K, "category": category}, {space: of_all[i] for space, of_all in vectors.items()}
        )
        for i, (call, of, category) in enumerate(calls)
    ]
    random.shuffle(questions)
    return questions


def _switch(engine: Engine, target: RunModels) -> Switched:
    """The last step of a retag."""
    started = time.perf_counter()
    with engine.begin() as connection:
        lock_for_switch(connection)
        live = read_live_models(connection)
        switches = find_switches(live, target)
        lacking = find_incompleteness(connection, target, switches)
        assert lacking is None, lacking
        switch_models(connection, target, live, switches, agreement=None, failed_share_limit=0)
    return Switched(started, time.perf_counter(), target.space_id)


@contextmanager
def _connect(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def _ask(connection: Connection, question: Question) -> Rows:
    statement = text(f"SELECT image_id, similarity FROM catalog.{question.call}")
    return tuple((row.image_id, row.similarity) for row in connection.execute(statement, question.parameters))


@contextmanager
def _ask_without_pause(engine: Engine, questions: Sequence[Question], clients: int) -> Iterator[list[Asked]]:
    """Each client on a connection of its own, until the end of the block; the list is complete after it."""
    asked: list[Asked] = []
    stop = threading.Event()

    def ask(client: int) -> None:
        with _connect(engine) as connection:
            for number in count(client * len(questions) // clients):
                if stop.is_set():
                    return
                asked.append(_time_question(connection, questions[number % len(questions)]))

    with ThreadPoolExecutor(clients) as threads:
        futures = [threads.submit(ask, client) for client in range(clients)]
        try:
            yield asked
        finally:
            stop.set()
    for future in futures:
        future.result()


def _time_question(connection: Connection, question: Question) -> Asked:
    started = time.perf_counter()
    try:
        rows = _ask(connection, question)
    except exc.DBAPIError as error:
        return Asked(question, started, time.perf_counter(), failure=str(error.orig))
    return Asked(question, started, time.perf_counter(), rows)


def judge(asked: Asked, spaces: Mapping[int, np.ndarray]) -> Judged:
    """Find the space of an answer; ``spaces`` holds the unit vectors of all photos, ids from 1 on."""
    photos = np.array([image_id for image_id, _ in asked.rows], dtype=int) - 1
    given = np.array([similarity for _, similarity in asked.rows])
    found = None
    for space, vectors in spaces.items():
        wanted = asked.question.vectors[space]
        true = vectors[photos].astype(np.float32) @ wanted / np.linalg.norm(wanted)
        if asked.failure is None and np.abs(true - given).max(initial=0) < ROUNDING:
            found = space
    return Judged(asked.started, asked.ended, len(asked.rows), found, asked.failure)


def summarise(
    images: int, clients: int, first_space: int, switches: Sequence[Switched], judged: Sequence[Judged]
) -> SwitchReport:
    """Count what is wrong, and sort the questions by when they were open."""
    failures = [one.failure for one in judged if one.failure is not None]
    answered = [one for one in judged if one.failure is None]
    phases: dict[str, list[float]] = {"before": [], "during a switch": [], "just after": [], "between": []}
    for one in judged:
        phases[_name_phase(one, switches)].append(1000 * (one.ended - one.started))
    return SwitchReport(
        images,
        clients,
        len(switches),
        round(max(one.ended - one.started for one in switches), 3),
        len(judged),
        len(failures),
        tuple(sorted(set(failures))[:5]),
        sum(one.rows < K for one in answered),
        sum(one.space is None for one in answered),
        sum(one.space is not None and one.space not in _allowed(one, first_space, switches) for one in answered),
        tuple(_measure_phase(name, milliseconds) for name, milliseconds in phases.items()),
    )


def _allowed(asked: Judged, first_space: int, switches: Sequence[Switched]) -> set[int]:
    """The spaces that were live at some time while a question was open; a commit falls somewhere in its switch."""
    committed = [first_space, *(one.space for one in switches if one.ended <= asked.started)]
    return {committed[-1], *(one.space for one in switches if asked.started < one.ended and one.started < asked.ended)}


def _name_phase(asked: Judged, switches: Sequence[Switched]) -> str:
    if any(asked.started < one.ended and one.started < asked.ended for one in switches):
        return "during a switch"
    if asked.ended <= switches[0].started:
        return "before"
    is_soon = any(0 <= asked.started - one.ended < AFTERWARDS_SECONDS for one in switches)
    return "just after" if is_soon else "between"


def _measure_phase(name: str, milliseconds: Sequence[float]) -> Phase:
    if not milliseconds:
        return Phase(name, 0, None, None, None)
    p50, p99, longest = (round(float(value), 1) for value in np.percentile(milliseconds, [50, 99, 100]))
    return Phase(name, len(milliseconds), p50, p99, longest)


def _print_report(report: SwitchReport) -> None:
    print(
        f"{report.images:,} images, {report.clients} clients, {report.switches} switches, the longest "
        f"{report.longest_switch_seconds:.2f} s: {report.questions:,} questions, {report.failures} failed, "
        f"{report.short} short, {report.mixed} mixed, {report.stale} stale"
    )
    for phase in report.phases:
        print(
            f"  {phase.name:16} {phase.questions:6,} questions  p50 {phase.p50_milliseconds} ms  "
            f"p99 {phase.p99_milliseconds} ms  longest {phase.longest_milliseconds} ms"
        )


if __name__ == "__main__":
    main()
