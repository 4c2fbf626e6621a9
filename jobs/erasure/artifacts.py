"""Remove images from the artifacts: examples, manifests, reports of imports, snapshots and evaluations."""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.connections import Connections
from jobs.database.erasure import CatalogImage
from jobs.database.evaluations import find_evaluation_in, read_gate_decisions, store_page_hash
from jobs.ingest.manifest import decode_shard, encode_shard
from jobs.progress import Progress
from jobs.retrain.evaluate.evaluation_record import (
    FLIPS_FILE,
    LABEL_AUDIT_FILE,
    PAGE_FILE,
    PREDICTIONS_FILE,
    Flip,
    LabelSuspect,
    decode_flips,
    decode_label_suspects,
    encode_list,
)
from jobs.retrain.gates.evaluation_page import render_page
from jobs.retrain.gates.gates import read_page_contents
from jobs.retrain.snapshot.snapshot_file import SnapshotRow, encode_snapshot, erase_rows, load_snapshot
from jobs.storage.locations import S3Uri, example_location, snapshot_location

ERASED_KEY = "erased"
"""Replaces the key of an erased image in a manifest, whose numbers of entries must not change. A run that is resumed
finds no such object and counts the entry as reused."""


@dataclass(frozen=True)
class ErasureTarget:
    """What to remove. ``contents`` are the hexadecimal hashes of the images' bytes.

    ``kept_examples`` are those that another label needs, too. The rows of snapshots merge all labels of the same bytes,
    so they are removed in any case.
    """

    images: tuple[CatalogImage, ...]
    contents: frozenset[str]
    kept_examples: frozenset[str]

    @property
    def image_ids(self) -> set[int]:
        """The ids of the images."""
        return {image.image_id for image in self.images}

    def is_erased(self, row: SnapshotRow) -> bool:
        """Return whether a row of a snapshot belongs to an image."""
        return row.content_hash in self.contents


def find_snapshots(connections: Connections, target: ErasureTarget, progress: Progress) -> list[str]:
    """Return the ids of the snapshots in the artifacts that contain any of the images.

    Raises:
        RetryableError, PermanentError: the bucket is unavailable, or a snapshot is damaged.
    """
    folders = _list_folders(connections, "snapshots")
    ids = [file.key.rpartition("/")[2].removesuffix(".parquet") for files in folders for file in files]

    def contains_images(snapshot_id: str) -> bool:
        snapshot = load_snapshot(connections.store, connections.artifacts, snapshot_id)
        return any(map(target.is_erased, snapshot.rows))

    with ThreadPoolExecutor(connections.settings.compute.read_threads) as pool:
        found = progress.track("searching snapshots", pool.map(contains_images, ids), len(ids), unit="snapshots")
        return [snapshot_id for snapshot_id, is_found in zip(ids, found, strict=True) if is_found]


def erase_from_artifacts(
    connections: Connections, target: ErasureTarget, snapshots: Sequence[str], progress: Progress
) -> int:
    """Remove images from all files below the artifacts except models. Return how many files changed or were deleted.

    A second call finds nothing to change.

    Raises:
        RetryableError, PermanentError: the bucket is unavailable, or a file is damaged.
    """
    eraser = _Eraser(connections, target)
    handlers: dict[str, Callable[[list[S3Uri]], int]] = {
        "runs": eraser.clean_manifest,
        "imports": eraser.clean_import,
        "evaluations": eraser.clean_evaluation,
    }
    changed = sum(map(eraser.clean_snapshot, snapshots))
    with ThreadPoolExecutor(connections.settings.compute.read_threads) as pool:
        for name, clean in handlers.items():
            folders = _list_folders(connections, name)
            results = pool.map(clean, folders)
            changed += sum(progress.track(f"searching {name}", results, len(folders), unit="folders"))
    return changed + eraser.delete_examples()


def _list_folders(connections: Connections, name: str) -> list[list[S3Uri]]:
    """Return the files below a folder of the artifacts, grouped by the folder that they are in."""
    folders: dict[str, list[S3Uri]] = defaultdict(list)
    for page in connections.store.list_pages((connections.artifacts / name).as_folder()):
        for item in page:
            folders[item.key.rpartition("/")[0]].append(S3Uri(connections.artifacts.bucket, item.key))
    return list(folders.values())


class _Eraser:
    """Each method removes the images from the files of one folder, and returns how many files it rewrote."""

    def __init__(self, connections: Connections, target: ErasureTarget) -> None:
        self._connections = connections
        self._store = connections.store
        self._target = target

    def delete_examples(self) -> int:
        """Delete the bytes of the images. Return the number of files."""
        contents = self._target.contents - self._target.kept_examples
        locations = [example_location(self._connections.artifacts, content) for content in contents]
        existing = [location for location in locations if self._store.exists(location)]
        for location in existing:
            self._store.delete(location)
        return len(existing)

    def clean_manifest(self, files: list[S3Uri]) -> int:
        """Replace the keys of the images in the shards of a run."""
        return sum(self._clean_shard(file) for file in files if file.key.endswith(".parquet"))

    def _clean_shard(self, file: S3Uri) -> bool:
        content = self._store.read(file)
        ids = pq.read_table(io.BytesIO(content), columns=["image_id"]).column("image_id")
        if not pc.any(pc.is_in(ids, pa.array(list(self._target.image_ids), pa.int64()))).as_py():
            return False
        shard = decode_shard(content)
        listed = [entry for chunk in shard.chunks for entry in chunk]
        entries = [
            replace(entry, object_key=ERASED_KEY, etag=ERASED_KEY, size_bytes=0)
            if entry.image_id in self._target.image_ids
            else entry
            for entry in listed
        ]
        if entries == listed:
            return False
        self._store.write(file, encode_shard(shard.header, entries, len(shard.chunks[0])))
        return True

    def clean_import(self, files: list[S3Uri]) -> int:
        """Remove the rows of the images from the lists of skipped rows."""
        keys = {image.object_key for image in self._target.images}
        return sum(self._rewrite(file, lambda content: _drop_lines(content, keys)) for file in files)

    def clean_snapshot(self, snapshot_id: str) -> int:
        """Remove the rows of the images from a snapshot."""
        snapshot = load_snapshot(self._store, self._connections.artifacts, snapshot_id)
        content = encode_snapshot(erase_rows(snapshot, self._target.is_erased))
        self._store.write(snapshot_location(self._connections.artifacts, snapshot_id), content)
        return 1

    def clean_evaluation(self, files: list[S3Uri]) -> int:
        """Remove the images from the lists and the page of an evaluation."""
        folder = S3Uri(files[0].bucket, files[0].key.rpartition("/")[0])
        contents = self._target.contents
        flips = decode_flips(self._store.read_if_present(folder / FLIPS_FILE) or b"[]")
        suspects = decode_label_suspects(self._store.read_if_present(folder / LABEL_AUDIT_FILE) or b"[]")
        kept_flips = [flip for flip in flips if flip.image_id not in self._target.image_ids]
        kept_suspects = [suspect for suspect in suspects if suspect.content_hash not in contents]
        changed = []
        if len(kept_flips) < len(flips):
            changed.append((FLIPS_FILE, encode_list(kept_flips)))
        if len(kept_suspects) < len(suspects):
            changed.append((LABEL_AUDIT_FILE, encode_list(kept_suspects)))
        if changed:
            # The page comes first: after a kill, the lists still show that it has to be rendered again.
            self._render_page(folder, kept_flips, kept_suspects)
        for name, content in changed:
            self._store.write(folder / name, content)
        return len(changed) + self._rewrite(folder / PREDICTIONS_FILE, lambda content: _drop_rows(content, contents))

    def _render_page(self, folder: S3Uri, flips: Sequence[Flip], suspects: Sequence[LabelSuspect]) -> None:
        with self._connections.engine.begin() as connection:
            evaluation = find_evaluation_in(connection, str(folder))
            if evaluation is None or evaluation.page_sha256 is None:
                return
            decisions = read_gate_decisions(connection, evaluation.evaluation_id)
            contents = read_page_contents(connection, self._store, evaluation, decisions)
            page = render_page(replace(contents, flips=flips, label_suspects=suspects)).encode()
            self._store.write(folder / PAGE_FILE, page)
            store_page_hash(connection, evaluation.evaluation_id, hashlib.sha256(page).digest())

    def _rewrite(self, file: S3Uri, change: Callable[[bytes], bytes]) -> bool:
        content = self._store.read_if_present(file)
        changed = None if content is None else change(content)
        if changed is None or changed == content:
            return False
        self._store.write(file, changed)
        return True


def _drop_lines(content: bytes, keys: set[str]) -> bytes:
    """Drop the JSON lines with a value that contains one of the keys."""
    lines = content.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(key in str(value) for key in keys for value in _values(line)))


def _values(line: bytes) -> list[object]:
    return list(json.loads(line).values())


def _drop_rows(content: bytes, contents: frozenset[str]) -> bytes:
    """Drop the rows of a Parquet file with one of these content hashes."""
    table = pq.read_table(io.BytesIO(content))
    is_erased = pc.is_in(table.column("content_hash"), pa.array(list(contents), pa.string()))
    if not pc.any(is_erased).as_py():
        return content
    buffer = io.BytesIO()
    pq.write_table(table.filter(pc.invert(is_erased)), buffer, compression="zstd")
    return buffer.getvalue()
