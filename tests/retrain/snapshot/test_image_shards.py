from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.retrain.snapshot import image_shards
from jobs.retrain.snapshot.image_shards import ImageShards, encode, write_shards
from tests.retrain.snapshot.scenes import make_scene

SIDE = 48
SCENES = [np.asarray(make_scene(number, (SIDE, SIDE))) for number in range(10)]
BATCHES = [[encode(scene) for scene in SCENES[start : start + 4]] for start in (0, 4, 8)]
JPEGS = [jpeg for batch in BATCHES for jpeg in batch]


@pytest.fixture(params=["one file", "a file per batch"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "a file per batch":
        monkeypatch.setattr(image_shards, "SHARD_BYTES", 1)
    write_shards(tmp_path / "shards", BATCHES)
    return tmp_path / "shards"


def test_every_image_is_found_by_its_position(folder: Path) -> None:
    shards = ImageShards(folder, SIDE)
    assert len(shards) == len(JPEGS)
    assert [shards.read(position) for position in range(len(JPEGS))] == JPEGS


def test_decoded_images_are_nearly_the_originals(folder: Path) -> None:
    pixels = ImageShards(folder, SIDE).decode([7, 0])
    assert pixels.shape == (2, 3, SIDE, SIDE)
    assert pixels.dtype == torch.uint8
    for image, scene in zip(pixels, (SCENES[7], SCENES[0]), strict=True):
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - scene).mean() < 5


def test_small_images_keep_narrow_stripes_of_color(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = (200, 30, 30)
    stripes[:, 1::2] = (30, 30, 200)
    write_shards(tmp_path / "shards", [[encode(stripes)]])
    pixels = ImageShards(tmp_path / "shards", 64).decode([0])[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels.astype(int) - stripes).mean() < 10


def test_any_arrow_reader_reads_the_files(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    assert len(paths) in {1, 3}
    images = [image for path in paths for image in pa.ipc.open_file(str(path)).read_all().column("image").to_pylist()]
    assert images == JPEGS


def test_threads_share_the_shards(folder: Path) -> None:
    shards = ImageShards(folder, SIDE)
    positions = np.random.default_rng(0).integers(0, len(JPEGS), 500).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shards.read, positions)) == [JPEGS[position] for position in positions]


def test_batches_are_written_one_at_a_time(tmp_path: Path) -> None:
    def produce() -> object:
        for number, batch in enumerate(BATCHES):
            if number == 2:
                written = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
                assert written >= sum(map(len, JPEGS[:8]))
            yield batch

    write_shards(tmp_path / "shards", produce())  # type: ignore[arg-type]
    assert len(ImageShards(tmp_path / "shards", SIDE)) == len(JPEGS)


def test_no_images_are_no_files(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [])
    assert len(ImageShards(tmp_path / "shards", SIDE)) == 0
