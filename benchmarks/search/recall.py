"""How right and how fast the answers of SQL are, on made-up catalogs of up to a million photos.

    python -m benchmarks.search.recall
    python -m benchmarks.search.recall --images 10000 100000 --queries 100

Everything but the vectors is real: Postgres with pgvector as the local stack runs it, the schema, the functions, the
live index; one connection asks one question after another, after as many others that do not count. Right is what an
exact comparison with every photo gives, product by product. Of questions with a category half come from a product of
that category, half from any other: the photos nearest to those are all of the wrong one.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Engine, text

from benchmarks.empty_stack import open_empty_stack
from benchmarks.machine import name_processor
from benchmarks.search.load_catalog import Loaded, load_catalog
from benchmarks.search.made_up_vectors import PHOTOS_PER_PRODUCT, RARE_CATEGORIES, MadeUpCatalog, make_catalog
from jobs.database.engine import create_database_engine
from jobs.database.spaces import read_live_space
from jobs.settings import PROJECT_ROOT

Ask = Callable[[Connection, int, "Question", str | None], list[int]]
"""Asks the question of a number, in a category or in all; returns the numbers of products."""

K = 10
TEXT_NOISE = 0.3
CHUNK = 60_000


@dataclass(frozen=True)
class Question:
    """What is asked; ``own`` is the number of the product that is no answer, or None for a text."""

    vector: np.ndarray
    own: int | None
    category: int | None


@dataclass(frozen=True)
class Answers:
    """Of one kind of question; ``recall`` is the mean share of the true answers, ``least_rows`` the fewest rows."""

    name: str
    questions: int
    recall: float
    least_rows: int
    p50_milliseconds: float
    p95_milliseconds: float


@dataclass(frozen=True)
class SizeReport:
    """All that was measured at one size."""

    images: int
    loaded: Loaded
    answers: tuple[Answers, ...]


def main() -> None:
    """Measure each size, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path, default=PROJECT_ROOT / ".local" / "bench-search.json")
    arguments = parser.parse_args()
    reports = []
    for images in arguments.images:
        with open_database() as engine:
            reports.append(measure_size(engine, images, arguments.queries))
        _print_report(reports[-1])
    summary = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": name_processor(),
        "sizes": [asdict(report) for report in reports],
    }
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(summary, indent=2))


def measure_size(engine: Engine, images: int, queries: int) -> SizeReport:
    """Load a catalog of this size and ask it."""
    catalog = make_catalog(images)
    loaded = load_catalog(engine, catalog)
    random = np.random.default_rng(1)
    answers = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name, category in [(None, None), *((name, catalog.names.index(name)) for name in RARE_CATEGORIES)]:
            questions = ask_about_products(catalog, random, 2 * queries, category)
            title = f"similar_products, {name} of the images" if name else "similar_products"
            answers.append(_measure(connection, title, catalog, questions, _ask_product))
        texts = ask_texts(catalog, random, 2 * queries)
        store_texts(connection, read_live_space(connection).space_id, texts)
        answers.append(_measure(connection, "search_products", catalog, texts, _ask_text))
    return SizeReport(len(catalog.vectors), loaded, tuple(answers))


def ask_about_products(
    catalog: MadeUpCatalog, random: np.random.Generator, count: int, category: int | None
) -> list[Question]:
    """Products and the mean of their photos; see the module about categories."""
    products = random.choice(catalog.products, size=count, replace=False)
    if category is not None:
        of_category = np.flatnonzero(catalog.categories == category)
        products[::2] = random.choice(of_category, size=len(products[::2]), replace=len(of_category) < count)
    means = average_photos(catalog, products)
    return [Question(mean, int(number), category) for mean, number in zip(means, products, strict=True)]


def average_photos(catalog: MadeUpCatalog, products: np.ndarray) -> np.ndarray:
    """What `catalog.product_vector` gives for each product, rounded as a halfvec is."""
    photos = catalog.vectors.reshape(catalog.products, PHOTOS_PER_PRODUCT, -1)
    means: np.ndarray = photos[products].astype(np.float32).mean(1).astype(np.float16).astype(np.float32)
    return means


def ask_texts(catalog: MadeUpCatalog, random: np.random.Generator, count: int) -> list[Question]:
    """Vectors at some distance from a photo, as those of texts are."""
    photos = catalog.vectors[random.choice(len(catalog.vectors), size=count)].astype(np.float32)
    noise = random.standard_normal(photos.shape, dtype=np.float32)
    return [
        Question(vector, None, None) for vector in photos + TEXT_NOISE * noise / np.linalg.norm(noise, axis=1)[:, None]
    ]


def store_texts(connection: Connection, space_id: int, questions: Sequence[Question]) -> None:
    """Have the encoder of a space know them as the texts "text 0", "text 1" and so on."""
    statement = text("""
        INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
        SELECT 'text ' || :number, encoder_version_id, CAST(:vector AS halfvec)
        FROM catalog.embedding_spaces WHERE space_id = :space
    """)
    rows = [
        {"space": space_id, "number": number, "vector": str(one.vector.tolist())}
        for number, one in enumerate(questions)
    ]
    connection.execute(statement, rows)


def _ask_product(connection: Connection, _: int, question: Question, category: str | None) -> list[int]:
    statement = text("SELECT product_id FROM catalog.similar_products(:product, :k, :category)")
    assert question.own is not None
    parameters = {"product": f"sku{question.own + 1}", "k": K, "category": category}
    return [int(row.product_id.removeprefix("sku")) - 1 for row in connection.execute(statement, parameters)]


def _ask_text(connection: Connection, number: int, _: Question, category: str | None) -> list[int]:
    statement = text("SELECT product_id FROM catalog.search_products(:query, :k, :category)")
    parameters = {"query": f"text {number}", "k": K, "category": category}
    return [int(row.product_id.removeprefix("sku")) - 1 for row in connection.execute(statement, parameters)]


def _measure(
    connection: Connection, name: str, catalog: MadeUpCatalog, questions: Sequence[Question], ask: Ask
) -> Answers:
    """The first half warms up; the second counts."""
    answers, milliseconds = [], []
    for number, question in enumerate(questions):
        category = None if question.category is None else catalog.names[question.category]
        started = time.perf_counter()
        answers.append(ask(connection, number, question, category))
        milliseconds.append(1000 * (time.perf_counter() - started))
    half = len(questions) // 2
    truth = find_nearest(catalog, questions[half:])
    shares = [len(set(given) & true) / len(true) for given, true in zip(answers[half:], truth, strict=True)]
    p50, p95 = np.percentile(milliseconds[half:], [50, 95])
    least = min(len(given) for given in answers[half:])
    return Answers(name, half, float(np.mean(shares)), least, round(float(p50), 2), round(float(p95), 2))


def find_nearest(catalog: MadeUpCatalog, questions: Sequence[Question]) -> list[set[int]]:
    """The `K` products with the most similar photo for each question, by comparing all."""
    wanted = np.stack([question.vector / np.linalg.norm(question.vector) for question in questions])
    best = np.empty((len(questions), catalog.products), dtype=np.float32)
    for start in range(0, len(catalog.vectors), CHUNK):
        similarities = wanted @ catalog.vectors[start : start + CHUNK].astype(np.float32).T
        by_product = similarities.reshape(len(questions), -1, PHOTOS_PER_PRODUCT).max(2)
        best[:, start // PHOTOS_PER_PRODUCT :][:, : by_product.shape[1]] = by_product
    for row, question in zip(best, questions, strict=True):
        if question.own is not None:
            row[question.own] = -np.inf
        if question.category is not None:
            row[catalog.categories != question.category] = -np.inf
    nearest = np.argpartition(-best, K, axis=1)[:, :K]
    return [
        {int(number) for number in row if scores[number] > -np.inf} for row, scores in zip(nearest, best, strict=True)
    ]


@contextmanager
def open_database() -> Iterator[Engine]:
    """A Postgres of its own with the schema, which ends and vanishes with the block."""
    with open_empty_stack() as environment:
        engine = create_database_engine(environment["CATALOG_DATABASE_URL"])
        yield engine
        engine.dispose()


def _print_report(report: SizeReport) -> None:
    loaded = report.loaded
    print(
        f"{report.images:,} images: {loaded.copied:,} copied in {loaded.copy_seconds:.0f} s and indexed in "
        f"{loaded.index_seconds:.0f} s, {loaded.added:,} added to the live index in {loaded.add_seconds:.0f} s; "
        f"table {loaded.table_bytes / 2**20:,.0f} MiB, index {loaded.index_bytes / 2**20:,.0f} MiB, "
        f"codes made in {loaded.code_seconds:.0f} s, {loaded.code_bytes / 2**20:,.0f} MiB"
    )
    for one in report.answers:
        print(
            f"  {one.name:45} recall@{K} {one.recall:.3f}  rows {one.least_rows}+  "
            f"p50 {one.p50_milliseconds:.1f} ms  p95 {one.p95_milliseconds:.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
