"""Store the images of a run as Parquet: one file per shard, one row group per chunk.

The metadata of each file names the run and its models. A shard is tagged with the versions that it was planned for,
even if others are promoted in the meantime.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.connections import Connections
from jobs.database.tagging_runs import PlannedShard, RunModels
from jobs.database.tagging_work import DueImage, DueImages
from jobs.errors import PermanentError
from jobs.settings import ComputeSettings
from jobs.storage.locations import manifest_location, shard_location

HEADER_KEY = b"catalog_tagger"
SHARD_SECONDS = 600
FIRST_SHARD_SIZE = 8192
"""Images in a shard before any run has shown how fast a process is."""
MAX_SHARD_SIZE = 200_000
"""A job has the list of its shard in memory, which takes 0.1 GB at this size."""
_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("object_key", pa.string(), nullable=False),
    pa.field("etag", pa.string(), nullable=False),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("needs_tag", pa.bool_(), nullable=False),
    pa.field("needs_embedding", pa.bool_(), nullable=False),
]
MANIFEST_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True)
class ShardHeader:
    """The run and models of a shard."""

    run_id: str
    shard: int
    bucket: str
    models: RunModels
    force: bool


@dataclass(frozen=True)
class Shard:
    """The work of one task. The number of a chunk is its position."""

    header: ShardHeader
    chunks: tuple[tuple[DueImage, ...], ...]


def encode_shard(header: ShardHeader, entries: Sequence[DueImage], chunk_size: int) -> bytes:
    """Encode a shard as Parquet."""
    columns = {name: [getattr(entry, name) for entry in entries] for name in MANIFEST_SCHEMA.names}
    table = pa.table(columns, schema=MANIFEST_SCHEMA.with_metadata({HEADER_KEY: json.dumps(asdict(header))}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=chunk_size)
    return buffer.getvalue()


def decode_shard(content: bytes) -> Shard:
    """Decode a shard.

    Raises:
        PermanentError: the bytes are not a valid shard.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        header = json.loads(file.schema_arrow.metadata[HEADER_KEY])
        models = RunModels(**header.pop("models"))
        chunks = tuple(
            tuple(DueImage(**row) for row in file.read_row_group(number).to_pylist())
            for number in range(file.num_row_groups)
        )
        return Shard(ShardHeader(models=models, **header), chunks)
    # Arrow raises OSError or ValueError. Other Parquet files lack our header.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            f"a shard of the manifest is damaged ({' '.join(str(error).split())[:200]}). Start a new run"
        ) from None


def choose_shard_size(images: int, images_per_second: float | None, compute: ComputeSettings) -> int:
    """Return the number of images in a shard that takes about ten minutes, or less if there are idle slots.

    ``images_per_second`` is the speed of a process in the latest runs, None before the first.
    """
    if compute.shard_size:
        return compute.shard_size
    timed = math.ceil(SHARD_SECONDS * images_per_second) if images_per_second else FIRST_SHARD_SIZE
    return max(compute.chunk_size, min(timed, MAX_SHARD_SIZE, math.ceil(images / compute.tagging_slots)))


class ManifestWriter:
    """Split the images of a run into shards, write the shards to the bucket, and count the images."""

    def __init__(
        self,
        connections: Connections,
        run_id: str,
        models: RunModels,
        images_per_second: float | None,
        *,
        force: bool = False,
    ) -> None:
        self.run_id = run_id
        self.models = models
        self.location = manifest_location(connections.artifacts, run_id)
        self.shards: list[PlannedShard] = []
        self.reasons: Counter[str] = Counter()
        self._force = force
        self._store = connections.store
        self._images_per_second = images_per_second
        self._compute = connections.settings.compute

    def write(self, bucket: str, due: DueImages) -> None:
        """Append shards with the images of one bucket."""
        size = choose_shard_size(due.total, self._images_per_second, self._compute)
        while images := list(islice(due.images, size)):
            header = ShardHeader(self.run_id, len(self.shards), bucket, self.models, self._force)
            content = encode_shard(header, images, self._compute.chunk_size)
            self._store.write(shard_location(self.location, header.shard), content)
            self.reasons.update(image.reason for image in images)
            self.shards.append(PlannedShard(entries=len(images), chunks=-(-len(images) // self._compute.chunk_size)))
