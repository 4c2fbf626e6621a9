"""Measure recall and latency of search in SQL, on generated catalogs of up to a million images.

    python -m benchmarks.search.recall
    python -m benchmarks.search.recall --images 10000 100000 --queries 100

Only the vectors are generated. Everything else is real: the local stack's Postgres with pgvector, the schema, the
functions and the live index. One connection sends one query at a time, after a warm-up with as many queries. Recall is
relative to an exact comparison with the images of all products. Half of the queries with a category start from a
product of that category, and half from a random product, whose nearest images are usually in another category.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Engine, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import (
    IMAGES_PER_PRODUCT,
    RARE_CATEGORIES,
    GeneratedCatalog,
    load_catalog,
    make_catalog,
)
from benchmarks.stack import open_stack
from jobs.database.engine import create_database_engine
from jobs.database.spaces import read_live_space

Search = Callable[[Connection, int, "Query"], list[int]]
"""A function that runs the query with a number, and returns numbers of products."""

K = 10
TEXT_NOISE = 0.3
CHUNK = 60_000


@dataclass(frozen=True)
class Query:
    """A search. ``own`` is the product that it starts from, which cannot be a result; None for a search by text.

    ``category`` is a place in ``names``, the names of all categories, or None for a search in all.
    """

    vector: np.ndarray
    own: int | None = None
    category: int | None = None
    names: Sequence[str] = ()

    @property
    def category_name(self) -> str | None:
        """Return the name of the category."""
        return None if self.category is None else self.names[self.category]


@dataclass(frozen=True)
class Accuracy:
    """The figures of one kind of query. ``recall`` is the mean share of the true results that were found."""

    recall: float
    p50_milliseconds: float
    p95_milliseconds: float

    def __str__(self) -> str:
        return f"{self.recall:.3f}; {self.p50_milliseconds:.1f}, {self.p95_milliseconds:.1f}"


def main() -> None:
    """Measure each size and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    rows = []
    for images in arguments.images:
        with open_database() as engine:
            rows.append(measure_size(engine, images, arguments.queries))
        print(f"  {rows[-1]}", flush=True)
    publish(
        "Search in a million images",
        f"recall@{K} and p50, p95 in ms of {arguments.queries} queries on one connection, against an exact comparison. "
        f"The vectors are generated, {IMAGES_PER_PRODUCT} images per product, 512 dimensions; Postgres with pgvector "
        "as the local stack runs it. A night adds 20,000 images (a fifth of the smaller catalogs at most).",
        rows,
        targets="0.97 and 15 ms; in categories 0.95 and 40 ms",
        packages=["pgvector", "psycopg2-binary"],
    )


def measure_size(engine: Engine, images: int, queries: int) -> Row:
    """Load a catalog with this number of images and search it."""
    catalog = make_catalog(images)
    loaded = load_catalog(engine, catalog)
    random = np.random.default_rng(1)
    by_product: list[Accuracy] = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for category in (None, *map(catalog.names.index, RARE_CATEGORIES)):
            products = make_product_queries(catalog, random, 2 * queries, category)
            by_product.append(measure(connection, products, _find_all(catalog, products), search_by_product))
        texts = make_text_queries(catalog, random, 2 * queries)
        store_texts(connection, read_live_space(connection).space_id, texts)
        by_text = measure(connection, texts, _find_all(catalog, texts), search_by_text)
    everywhere, *rare = map(str, by_product)
    sizes = (loaded.table_bytes, loaded.index_bytes, loaded.code_bytes)
    return {
        "images": len(catalog.vectors),
        "similar_products": everywhere,
        "search_products": str(by_text),
        **dict(zip(("category of 10 %", "of 1 %", "of 0.1 %"), rare, strict=True)),
        "vectors copied, s": round(loaded.copy_seconds),
        "index built, s": round(loaded.index_seconds),
        "night added, s": round(loaded.add_seconds),
        "codes made, s": round(loaded.code_seconds),
        "table, index, codes, MiB": ", ".join(f"{size / 2**20:,.0f}" for size in sizes),
    }


def make_product_queries(
    catalog: GeneratedCatalog, random: np.random.Generator, count: int, category: int | None
) -> list[Query]:
    """Return queries by the mean vector of random products. The module's docstring describes those with a category."""
    products = random.choice(catalog.products, size=count, replace=False)
    if category is not None:
        of_category = np.flatnonzero(catalog.categories == category)
        products[::2] = random.choice(of_category, size=len(products[::2]), replace=len(of_category) < count)
    means = average_images(catalog, products)
    return [Query(mean, int(number), category, catalog.names) for mean, number in zip(means, products, strict=True)]


def average_images(catalog: GeneratedCatalog, products: np.ndarray) -> np.ndarray:
    """Compute the same vectors as `catalog.product_vector`, rounded like a halfvec."""
    images = catalog.vectors.reshape(catalog.products, IMAGES_PER_PRODUCT, -1)
    means: np.ndarray = images[products].astype(np.float32).mean(1).astype(np.float16).astype(np.float32)
    return means


def make_text_queries(
    catalog: GeneratedCatalog, random: np.random.Generator, count: int, length: float = TEXT_NOISE
) -> list[Query]:
    """Return queries at some distance from an image, like the vectors of texts."""
    images = catalog.vectors[random.choice(len(catalog.vectors), size=count)].astype(np.float32)
    noise = random.standard_normal(images.shape, dtype=np.float32)
    vectors = images + length * noise / np.linalg.norm(noise, axis=1)[:, None]
    return [Query(vector) for vector in vectors]


def store_texts(connection: Connection, space_id: int, queries: Sequence[Query]) -> None:
    """Store the vectors as embeddings of "text 0", "text 1" and so on, by the encoder of a space."""
    statement = text("""
        INSERT INTO catalog.text_queries (query_text, encoder_version_id, embedding)
        SELECT 'text ' || :number, encoder_version_id, CAST(:vector AS halfvec)
        FROM catalog.embedding_spaces WHERE space_id = :space
    """)
    rows = [
        {"space": space_id, "number": number, "vector": str(one.vector.tolist())} for number, one in enumerate(queries)
    ]
    connection.execute(statement, rows)


def search_by_product(connection: Connection, _: int, query: Query) -> list[int]:
    """Search with ``similar_products``."""
    statement = text("SELECT product_id FROM catalog.similar_products(:product, :k, :category)")
    assert query.own is not None
    parameters = {"product": f"sku{query.own + 1}", "k": K, "category": query.category_name}
    return [int(row.product_id.removeprefix("sku")) - 1 for row in connection.execute(statement, parameters)]


def search_by_text(connection: Connection, number: int, query: Query) -> list[int]:
    """Search with ``search_products`` for the text with this number."""
    statement = text("SELECT product_id FROM catalog.search_products(:query, :k, :category)")
    parameters = {"query": f"text {number}", "k": K, "category": query.category_name}
    return [int(row.product_id.removeprefix("sku")) - 1 for row in connection.execute(statement, parameters)]


def measure(connection: Connection, queries: Sequence[Query], truth: Sequence[set[int]], search: Search) -> Accuracy:
    """Run all queries. The first half is a warm-up, the second half is measured and compared with its truth."""
    found, milliseconds = [], []
    for number, query in enumerate(queries):
        started = time.perf_counter()
        found.append(search(connection, number, query))
        milliseconds.append(1000 * (time.perf_counter() - started))
    half = len(queries) // 2
    shares = [len(set(given) & true) / len(true) for given, true in zip(found[half:], truth[half:], strict=True)]
    p50, p95 = np.percentile(milliseconds[half:], [50, 95])
    return Accuracy(float(np.mean(shares)), float(p50), float(p95))


def _find_all(catalog: GeneratedCatalog, queries: Sequence[Query]) -> list[set[int]]:
    parts = (catalog.vectors[start : start + CHUNK] for start in range(0, len(catalog.vectors), CHUNK))
    return find_nearest(parts, catalog.categories, queries)


def find_nearest(parts: Iterable[np.ndarray], categories: np.ndarray, queries: Sequence[Query]) -> list[set[int]]:
    """Return the `K` products with the most similar images for each query, by an exact comparison.

    ``parts`` are the vectors of all products in order, whole products at a time. ``categories`` are those of products.
    """
    wanted = np.stack([query.vector / np.linalg.norm(query.vector) for query in queries])
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    products = np.zeros((len(queries), K), dtype=np.int64)
    first = 0
    for part in parts:
        scores = (wanted @ part.astype(np.float32).T).reshape(len(queries), -1, IMAGES_PER_PRODUCT).max(2)
        numbers = np.arange(first, first + scores.shape[1])
        for row, query in zip(scores, queries, strict=True):
            if query.own is not None and first <= query.own <= numbers[-1]:
                row[query.own - first] = -np.inf
            if query.category is not None:
                row[categories[numbers] != query.category] = -np.inf
        scores = np.concatenate([best, scores], axis=1)
        places = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        candidates = np.concatenate([products, np.broadcast_to(numbers, (len(queries), len(numbers)))], axis=1)
        best, products = (np.take_along_axis(values, places, axis=1) for values in (scores, candidates))
        first += len(numbers)
    return [set(row[scores > -np.inf].tolist()) for row, scores in zip(products, best, strict=True)]


@contextmanager
def open_database() -> Iterator[Engine]:
    """Start a Postgres with the schema. Stop and delete it at the end of the block."""
    with open_stack() as stack:
        engine = create_database_engine(stack.database_url)
        yield engine
        engine.dispose()


if __name__ == "__main__":
    main()
