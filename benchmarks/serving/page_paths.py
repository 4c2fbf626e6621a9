"""List the addresses of all pages, for a catalog that `simulate_use` created."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import get_args
from urllib.parse import urlencode

from sqlalchemy import Engine, text

from benchmarks.search.generated_catalog import IMAGES_PER_PRODUCT
from benchmarks.serving.used_catalog import RETAG_SHOWN, RUN_SHOWN, RUN_UNDER_WAY
from jobs.database.image_filters import Sort, write_cursor
from jobs.database.model_versions import MODEL_KINDS
from jobs.review.queue import REASONS

MAX_PAGES = 10
GRID = "images, {sort}: a twentieth of the combinations of seven filters"
GRID_SHARE = 0.05
"""There are 7,200 combinations, most of them with two pages."""


@dataclass(frozen=True)
class Address:
    """A path below /catalog, and the row of the result table that it belongs to."""

    group: str
    path: str


def list_pages(engine: Engine, images: int) -> Iterator[Address]:
    """List every page except the grid. One page is listed twice."""
    products = images // IMAGES_PER_PRODUCT
    # The first request also reads the settings and opens the connections, so it has its own row.
    yield Address("first page after a start", "failures")
    yield Address("overview", "overview")
    yield Address("running jobs", "progress")
    for run in (RUN_SHOWN, RETAG_SHOWN, RUN_UNDER_WAY):
        yield Address("a run", f"run?{urlencode({'run': run})}")
        yield Address("running jobs", f"progress?{urlencode({'run': run})}")
    for number in range(1, products, products // 40):
        yield Address("a product", f"product?id=sku{number}")
    for category in ("", "a tenth", "a thousandth", "category 03"):
        for number in range(11, products, products // 8):
            similar = {"like": f"sku{number}", "category": category}
            words = {"q": f"question {number % 5000 + 1}", "category": category}
            yield Address("search: more like this", f"search?{urlencode(similar)}")
            yield Address("search: words searched before", f"search?{urlencode(words)}")
            yield Address("search: the last page", f"search?{urlencode(words | {'page': MAX_PAGES})}")
    for reason in ("", *REASONS):
        yield Address("review", f"review?only={reason}")
    for reason, ignored, after in itertools.product(("", "corrupt"), ("false", "true"), ({}, {"after": images // 2})):
        yield Address("failures", f"failures?{urlencode({'reason': reason, 'ignored': ignored, **after})}")
    yield Address("map", "map")
    yield Address("map: all points", "map/points")
    yield from list_model_pages(engine)


def list_model_pages(engine: Engine) -> Iterator[Address]:
    """List the overview of versions, the pages of some versions, and pages to decide on a promotion or rollback."""
    yield Address("models", "models")
    for kind in MODEL_KINDS:
        versions = _list_versions(engine, kind)
        for version in versions[::8]:
            yield Address("models", f"models/{version}")
        yield Address("models", f"models/{versions[-1]}/promote")
        yield Address("models", f"models/{find_earlier(engine, kind)}/rollback")


def list_grids(engine: Engine, images: int) -> Iterator[Address]:
    """List two pages for random combinations of filters and sorts: the first one, and one in the middle."""
    choices: dict[str, list[dict[str, str]]] = {
        "category": [{}, {"category": "a tenth"}, {"category": "a thousandth"}],
        "confidence": [
            {},
            {"max_confidence": "50"},
            {"min_confidence": "50", "max_confidence": "90"},
            {"min_confidence": "99.9"},
        ],
        "disagree": [{}, {"disagree": "true"}],
        "run": [{}, {"run": RUN_SHOWN}, {"run": RETAG_SHOWN}],
        "version": [{}, {"version": str(find_earlier(engine, "classifier"))}],
        "deleted": [{}, {"deleted": "true"}],
        "text": [{}, {"text": "red"}, {"text": "red striped dress"}, {"text": "sku1234"}, {"text": "no such words"}],
        "sort": [{"sort": sort} for sort in get_args(Sort)],
    }
    middles = {run: _find_middle(engine, run) for run in (RUN_SHOWN, RETAG_SHOWN)}
    drawn = random.Random(0)
    for chosen in itertools.product(*choices.values()):
        if drawn.random() >= GRID_SHARE:
            continue
        query = {name: value for one in chosen for name, value in one.items()}
        group = GRID.format(sort=query["sort"].replace("_", " "))
        yield Address(group, f"images?{urlencode(query)}")
        key: str | float | None = None
        if query["sort"] == "name":
            # Large results are not sorted by name, so the cursor depends on the number of images.
            continue
        if query["sort"].endswith("confident"):
            key = {"": 0.45 if "max_confidence" in query else 0.9, "50": 0.8, "99.9": 0.9995}[
                query.get("min_confidence", "")
            ]
        elif "run" in query:
            key = middles[query["run"]]
        yield Address(group, f"images?{urlencode(query | {'after': write_cursor(key, images // 2)})}")
    for side, category in itertools.product((1, 20, 99), ("", "a tenth")):
        area = f"-{side},-{side};{side},-{side};{side},{side};-{side},{side}"
        yield Address("images: in an area of the map", f"images?{urlencode({'area': area, 'category': category})}")


def find_earlier(engine: Engine, kind: str) -> int:
    """Return the version that was live before the current one."""
    statement = text("""
        SELECT s.model_version_id FROM catalog.switches s JOIN catalog.live_models l USING (kind)
        WHERE kind = :kind AND s.model_version_id <> l.model_version_id ORDER BY switch_id DESC LIMIT 1
    """)
    with engine.connect() as connection:
        version: int = connection.execute(statement, {"kind": kind}).scalar_one()
    return version


def _list_versions(engine: Engine, kind: str) -> list[int]:
    statement = text("SELECT model_version_id FROM catalog.model_versions WHERE kind = :kind ORDER BY 1")
    with engine.connect() as connection:
        return list(connection.execute(statement, {"kind": kind}).scalars())


def _find_middle(engine: Engine, run: str) -> str:
    """Return the time in the middle of a run, as the key of a cursor."""
    statement = text("SELECT started_at, finished_at FROM catalog.tagging_runs WHERE run_id = :run")
    with engine.connect() as connection:
        started_at, finished_at = connection.execute(statement, {"run": run}).one()
    length: timedelta = finished_at - started_at
    middle: str = (started_at + length / 2).isoformat()
    return middle
