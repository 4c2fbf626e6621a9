from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import PermanentError
from jobs.models.preprocessing import Geometry
from jobs.training.labelled_photos import LabelledPhoto, load_pixels, read_labelled_photos, split_photos
from tests.shop import make_photo

GEOMETRY = Geometry(resize_to=32, crop_to=32, keep_aspect=True, interpolation="bicubic")


def make_labels(count: int, photos_of_a_group: int = 1) -> list[LabelledPhoto]:
    return [
        LabelledPhoto(Path(f"{number}.jpg"), "hat", "hat", f"sku{number // photos_of_a_group}")
        for number in range(count)
    ]


def test_a_table_names_images_labels_texts_and_groups(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        'image,label,text,group\nhat/1.jpg,hat,"A red hat, plain",sku1\nhat/2.jpg,hat,,\n'
    )
    assert read_labelled_photos(tmp_path) == [
        LabelledPhoto(tmp_path / "hat" / "1.jpg", "hat", "A red hat, plain", "sku1"),
        LabelledPhoto(tmp_path / "hat" / "2.jpg", "hat", "hat", "hat/2.jpg"),
    ]


def test_two_columns_are_enough_and_a_spreadsheet_may_have_written_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("\ufeffimage,label\r\nä.jpg,Hüte\r\n".encode())
    assert read_labelled_photos(tmp_path) == [LabelledPhoto(tmp_path / "ä.jpg", "Hüte", "Hüte", "ä.jpg")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,category\n1.jpg,hat\n", "lacks the columns image and label"),
        (b"", "lacks the columns image and label"),
        (b"image,label\n1.jpg,\n", "a row without an image or a label"),
        (b"image,label\n,hat\n", "a row without an image or a label"),
        (b"image,label\n1.jpg\n", "a row without an image or a label"),
        ("image,label\n1.jpg,Hüte\n".encode("latin-1"), "is not UTF-8"),
        (b"image,label\n", "holds no labelled photos"),
    ],
)
def test_a_table_that_says_too_little_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(PermanentError, match=words) as caught:
        read_labelled_photos(tmp_path)
    assert "labels.csv" in str(caught.value)


def test_without_a_table_each_subfolder_is_a_category(tmp_path: Path) -> None:
    for name in ("hat/2.jpg", "hat/1.PNG", "dress/1.webp", "dress/notes.txt", "loose.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    photos = read_labelled_photos(tmp_path)
    assert [(photo.category, photo.path.name) for photo in photos] == [
        ("dress", "1.webp"),
        ("hat", "1.PNG"),
        ("hat", "2.jpg"),
    ]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="holds no labelled photos"):
        read_labelled_photos(tmp_path)


def test_a_split_keeps_groups_together_and_loses_nothing() -> None:
    photos = make_labels(600, photos_of_a_group=3)
    split = split_photos(photos, 0.25)
    assert sorted([*split.train, *split.test], key=photos.index) == photos
    assert not {photo.group for photo in split.train} & {photo.group for photo in split.test}
    assert 0.15 < len(split.test) / len(photos) < 0.35


def test_a_group_stays_on_its_side_whatever_is_added() -> None:
    before, after = split_photos(make_labels(100), 0.2), split_photos(make_labels(200)[::-1], 0.2)
    assert set(before.train) < set(after.train)
    assert set(before.test) < set(after.test)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_photos_to_split_are_refused(count: int) -> None:
    with pytest.raises(PermanentError, match=f"{count} labelled photos are too few"):
        split_photos(make_labels(count), 0.1)


def test_pixels_come_in_the_order_of_the_photos(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)] * 5
    photos = [LabelledPhoto(tmp_path / f"{number}.png", "hat", "hat", "hat") for number in range(len(colours))]
    for photo, colour in zip(photos, colours, strict=True):
        Image.new("RGB", (50, 40), colour).save(photo.path)
    pixels = load_pixels(photos, GEOMETRY, threads=3)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (15, 3, 32, 32))
    assert [tuple(colour) for colour in pixels[:, :, 5, 5].tolist()] == colours


def test_photos_are_seen_upright(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    loaded = load_pixels([LabelledPhoto(tmp_path / "turned.png", "hat", "hat", "hat")], GEOMETRY, threads=1)
    assert loaded[0, :, 2].float().mean() < 20
    assert loaded[0, :, 29].float().mean() > 235


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"<html>", "unsupported_format"), (make_photo(1)[:500], "truncated")],
)
def test_a_photo_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "1.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PermanentError, match=words) as caught:
        load_pixels([LabelledPhoto(path, "hat", "hat", "hat")], GEOMETRY, threads=1)
    assert str(path) in str(caught.value)
