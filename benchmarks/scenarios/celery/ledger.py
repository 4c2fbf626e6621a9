"""Read which worker tags which shard, and count the work that was done again after an event."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, text

READ = re.compile(r"^(\S+ \S+) DEBUG : serve s3: GET OBJECT Bucket: images Object: (.+)$", re.MULTILINE)

Chunk = tuple[int, int]
"""The numbers of a shard and of one of its chunks."""


@dataclass(frozen=True)
class TaggedShard:
    """A shard that a worker is tagging now."""

    number: int
    address: str
    committed: int
    chunks: int

    @property
    def is_midway(self) -> bool:
        """Whether some of its chunks are committed and others are not."""
        return 0 < self.committed < self.chunks


@dataclass(frozen=True)
class Event:
    """Something that happened to workers while they tagged ``shards``."""

    name: str
    at: float
    shards: frozenset[int]


@dataclass(frozen=True)
class Redone:
    """The images that were read again because of an event, and the chunks of which all images had been read before."""

    images: int
    chunks: int


def list_tagged_shards(engine: Engine, run_id: str) -> list[TaggedShard]:
    """Return the shards that are locked now, each with the address of the worker that holds the lock."""
    statement = text("""
        SELECT s.shard AS number, host(a.client_addr) AS address, s.chunks,
               (SELECT count(*) FROM catalog.run_chunks c WHERE c.run_id = s.run_id AND c.shard = s.shard) AS committed
        FROM catalog.run_shards s
        JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
            AND (CAST(l.classid AS bigint) << 32) | CAST(l.objid AS bigint)
                = hashtextextended(s.run_id || '/' || s.shard, 0)
        JOIN pg_stat_activity a USING (pid)
        WHERE s.run_id = :run ORDER BY s.shard
    """)
    with engine.connect() as connection:
        return [TaggedShard(**row) for row in connection.execute(statement, {"run": run_id}).mappings()]


def read_access_log(path: Path) -> list[tuple[float, str]]:
    """Return the time and key of each read of an image."""
    return [
        (datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp(), key)
        for at, key in READ.findall(path.read_text(encoding="utf-8"))
    ]


def count_redone(
    reads: Iterable[tuple[float, str]], chunks: Mapping[str, Chunk], events: Sequence[Event]
) -> dict[str, Redone]:
    """Count the images that were read more than once, for the latest event before that which hit their shard.

    A worker reads ahead of the models, so a chunk counts as redone only if all of its images had been read before.
    Images that no event explains count under an empty name.
    """
    first: dict[str, float] = {}
    again: dict[str, dict[Chunk, int]] = {name: {} for name in ("", *(event.name for event in events))}
    sizes: dict[Chunk, int] = {}
    for chunk in chunks.values():
        sizes[chunk] = sizes.get(chunk, 0) + 1
    for at, key in sorted(reads):
        if key not in chunks:
            continue
        if key not in first:
            first[key] = at
            continue
        chunk = chunks[key]
        causes = [event for event in events if event.at <= at and chunk[0] in event.shards]
        name = max(causes, key=lambda event: event.at).name if causes else ""
        again[name][chunk] = again[name].get(chunk, 0) + 1
    return {
        name: Redone(sum(counts.values()), sum(count >= sizes[chunk] for chunk, count in counts.items()))
        for name, counts in again.items()
    }


def compare_results(engine: Engine, other: Engine) -> tuple[int, int]:
    """Return the number of images in the first catalog, and of those whose results differ between the two."""
    results, expected = _read_results(engine), _read_results(other)
    return len(results), sum(results.get(key) != expected.get(key) for key in results.keys() | expected.keys())


def _read_results(engine: Engine) -> dict[str, tuple[object, ...]]:
    statement = text("""
        SELECT i.object_key, i.product_id, t.category, t.confidence, t.top_3, t.probabilities,
               CAST(e.embedding AS text), t.content_hash
        FROM catalog.images i
        JOIN catalog.image_tags t USING (image_id)
        JOIN catalog.image_embeddings e USING (image_id)
    """)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(statement)]
    results: dict[str, tuple[object, ...]] = {}
    for key, *values in rows:
        # A second result of the same image would differ from the single one of the other catalog.
        results[key] = (*results.get(key, ()), *map(str, values))
    return results
