"""Damage a vector index as a shop does over years, repair it with `catalog care`, and measure searches meanwhile.

    python -m benchmarks.search.index_care
    python -m benchmarks.search.index_care --images 1000000

A fifth of the images leave the bucket and lose their vectors, and another 30 % get new vectors, in chunks like those of
a nightly run. Then care rebuilds the index next to the old one. One client searches without a pause all the time, and
another writes a chunk from time to time.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.results import Row, publish
from benchmarks.search.generated_catalog import HASH_BYTES, load_catalog, make_catalog
from benchmarks.search.recall import open_database
from jobs.database.index_health import measure_vector_index
from jobs.database.recall_checks import RecallCheck, search_images
from jobs.database.spaces import EmbeddingSpace, read_live_space
from jobs.database.tagging_results import Embedding, upsert_embeddings
from jobs.search_quality.index_care import care_for_indexes
from jobs.search_quality.recall_check import K, check_recall

DELETED_SHARE, REPLACED_SHARE = 0.2, 0.3
CHUNK = 1024
WRITTEN, WRITE_PAUSE_SECONDS = 64, 2.0
"""The images that the second client writes at once, and its pause."""
CALM_SECONDS = 30.0
BOUND = 0.95
SEED = 5


def main() -> None:
    """Measure before, damaged, during care and after, and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    catalog, newer = make_catalog(arguments.images), make_catalog(arguments.images, seed=1)
    order = np.random.default_rng(SEED).permutation(len(catalog.vectors))
    deleted, replaced, kept = np.split(
        order, [int(len(order) * DELETED_SHARE), int(len(order) * (DELETED_SHARE + REPLACED_SHARE))]
    )
    with open_database() as engine:
        load_catalog(engine, catalog)
        with engine.connect() as connection:
            space = read_live_space(connection)
        bench = _Bench(engine, space, catalog.vectors, kept)
        rows = [bench.measure("before", _rest)]
        started = time.perf_counter()
        _delete(engine, space, deleted + 1)
        bench.write(replaced, newer.vectors)
        damage_seconds = time.perf_counter() - started
        rows.append(bench.measure("damaged", _rest))
        reports = []
        rows.append(
            bench.measure("during care", lambda: reports.append(care_for_indexes(engine, BOUND)), is_checked=False)
        )
        rows.append(bench.measure("after care", _rest))
    report = reports[0]
    (rebuild, *_) = report.rebuilt
    publish(
        "Repair of a vector index",
        f"{len(catalog.vectors):,} vectors of 512 dimensions. {DELETED_SHARE:.0%} are deleted and {REPLACED_SHARE:.0%} "
        f"replaced (in {damage_seconds:.0f} s). `catalog care` then rebuilt the index in {rebuild.seconds:.0f} s and "
        f"needed {report.seconds:.0f} s in all, with VACUUM and a recall check. Meanwhile, one client searches without "
        f"a pause, and another writes {WRITTEN} vectors every {WRITE_PAUSE_SECONDS:.0f} s. Latency of `nearest_images` "
        "and of one write, in ms; size is the index compared with a new one; Postgres with pgvector as the local stack "
        "runs it; all share the cores.",
        rows,
        targets=f"recall@{K} of at least {BOUND}; p99 at most twice that of before",
        packages=["pgvector", "psycopg2-binary"],
    )


def _rest() -> None:
    time.sleep(CALM_SECONDS)


def _delete(engine: Engine, space: EmbeddingSpace, image_ids: np.ndarray) -> None:
    parameters = {"ids": image_ids.tolist()}
    with engine.begin() as connection:
        connection.execute(text("UPDATE catalog.images SET deleted_at = now() WHERE image_id = ANY (:ids)"), parameters)
        connection.execute(text(f"DELETE FROM catalog.{space.partition} WHERE image_id = ANY (:ids)"), parameters)


class _Bench:
    """A space, the vectors to search with, and the images that writers write again."""

    def __init__(self, engine: Engine, space: EmbeddingSpace, vectors: np.ndarray, kept: np.ndarray) -> None:
        self._engine = engine
        self._space = space
        self._vectors = vectors
        self._kept = kept
        statement = text("""
            SELECT min(build_id) FROM catalog.model_builds WHERE model_version_id = :encoder
        """)
        with engine.connect() as connection:
            encoder = {"encoder": space.encoder_version_id}
            self._build_id: int = connection.execute(statement, encoder).scalar_one()

    def measure(self, phase: str, work: Callable[[], None], *, is_checked: bool = True) -> Row:
        """Search and write while some work is done, then check recall. Return a row of the table."""
        searches: list[float] = []
        writes: list[float] = []
        with self._use(searches, writes):
            work()
        row: dict[str, str | float | None] = {"phase": phase, "searches": len(searches)}
        row["p50, p95, p99"] = ", ".join(f"{value:.1f}" for value in np.percentile(searches, [50, 95, 99]))
        row["longest write"] = round(max(writes))
        if is_checked:
            with self._engine.connect() as connection:
                index = measure_vector_index(connection, self._space)
            assert index is not None
            row["size"] = round(index.bloat, 2)
            row["recall@10 (95 % interval)"] = _format(check_recall(self._engine, BOUND, seed=SEED).checks[0])
        print(f"  {row}", flush=True)
        return row

    def write(self, places: np.ndarray, vectors: np.ndarray) -> None:
        """Replace the vectors of images, given by their places, in chunks."""
        for start in range(0, len(places), CHUNK):
            self._write_chunk(places[start : start + CHUNK], vectors)

    def _write_chunk(self, places: Sequence[int] | np.ndarray, vectors: np.ndarray) -> None:
        chunk = [
            Embedding(int(place) + 1, (int(place) + 1).to_bytes(HASH_BYTES, "big"), vectors[place].astype(np.float32))
            for place in places
        ]
        with self._engine.begin() as connection:
            upsert_embeddings(connection, self._space.space_id, self._build_id, chunk)

    @contextmanager
    def _use(self, searches: list[float], writes: list[float]) -> Iterator[None]:
        """Search and write until the end of the block, and add the milliseconds to the lists."""
        stop = Event()
        random = np.random.default_rng(3)

        def search() -> None:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                while not stop.is_set():
                    vector = self._vectors[random.integers(len(self._vectors))].astype(np.float32)
                    started = time.perf_counter()
                    search_images(connection, self._space.space_id, vector, K, None, None)
                    searches.append(1000 * (time.perf_counter() - started))

        def write() -> None:
            number = 0
            while not stop.wait(WRITE_PAUSE_SECONDS if writes else 0):
                started = time.perf_counter()
                places = self._kept[number : number + WRITTEN]
                self._write_chunk(places, self._vectors)
                writes.append(1000 * (time.perf_counter() - started))
                number = (number + WRITTEN) % (len(self._kept) - WRITTEN)

        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(search), threads.submit(write)]
            try:
                yield
            finally:
                stop.set()
            for one in running:
                one.result()


def _format(check: RecallCheck) -> str:
    return f"{check.recall:.3f} ({check.low:.3f} to {check.high:.3f})"


if __name__ == "__main__":
    main()
