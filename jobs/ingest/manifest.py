"""The images of a run, in Parquet: one file for each shard, one row group for each chunk.

The file's metadata names the run and its models, so that a shard is tagged by the versions that it was planned
with, whatever is promoted or switched meanwhile.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.database.tagging_runs import RunModels
from jobs.database.tagging_work import DueImage
from jobs.errors import PermanentError

HEADER_KEY = b"catalog_tagger"
COLUMNS: "list[pa.Field[Any]]" = [
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("object_key", pa.string(), nullable=False),
    pa.field("etag", pa.string(), nullable=False),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("needs_tag", pa.bool_(), nullable=False),
    pa.field("needs_embedding", pa.bool_(), nullable=False),
]
SCHEMA = pa.schema(COLUMNS)


@dataclass(frozen=True)
class ShardHeader:
    """What a shard has to know besides its images."""

    run_id: str
    shard: int
    bucket: str
    models: RunModels
    force: bool


@dataclass(frozen=True)
class Shard:
    """The unit of one task; its chunks are numbered by their position."""

    header: ShardHeader
    chunks: tuple[tuple[DueImage, ...], ...]

    @property
    def entries(self) -> int:
        """The number of images in all chunks."""
        return sum(len(chunk) for chunk in self.chunks)


def encode_shard(header: ShardHeader, entries: Sequence[DueImage], chunk_size: int) -> bytes:
    """Write a shard as Parquet."""
    columns = {name: [getattr(entry, name) for entry in entries] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA.with_metadata({HEADER_KEY: json.dumps(asdict(header))}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=chunk_size)
    return buffer.getvalue()


def decode_shard(content: bytes) -> Shard:
    """Read a shard back; raises PermanentError where these bytes are none."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        header = json.loads(file.schema_arrow.metadata[HEADER_KEY])
        models = RunModels(**header.pop("models"))
        chunks = tuple(
            tuple(DueImage(**row) for row in file.read_row_group(number).to_pylist())
            for number in range(file.num_row_groups)
        )
        return Shard(ShardHeader(models=models, **header), chunks)
    # Arrow's own are an OSError or a ValueError; a file of another kind lacks our header.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            f"a shard of the manifest is damaged ({' '.join(str(error).split())[:200]}): start a new run"
        ) from None
