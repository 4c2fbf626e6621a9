from pathlib import Path

import pytest

from demo.photos import DemoRecord, find_own_photos, read_demo_record, reserve_stack, upload_photos, write_demo_record
from fixtures.shop import Shop, make_photo
from jobs.errors import PermanentError

SUFFIXES = (".jpg", ".png")


def write_photos(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_photo(number, (32, 40)))
    return folder


def test_subfolders_are_labels(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "shop", "dress/1.jpg", "dress/2.JPG", "hat/1.jpg", "hat/old/3.jpg")
    photos = find_own_photos(folder, SUFFIXES)
    assert photos.labels == ("folders", folder)
    assert [path.relative_to(folder).as_posix() for path in photos.files] == [
        "dress/1.jpg",
        "dress/2.JPG",
        "hat/1.jpg",
        "hat/old/3.jpg",
    ]


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("all/1.jpg", "all/2.jpg"), ("1.jpg", "all/2.jpg")])
def test_one_subfolder_or_none_is_no_label(tmp_path: Path, names: tuple[str, ...]) -> None:
    photos = find_own_photos(write_photos(tmp_path / "shop", *names), SUFFIXES)
    assert len(photos.files) == 2
    assert photos.labels is None


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "shop", "1.jpg", ".trash/2.jpg", ".3.jpg", "readme.txt", "labels/list.csv")
    photos = find_own_photos(folder, SUFFIXES)
    assert [path.name for path in photos.files] == ["1.jpg"]
    assert photos.labels is None


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=f"PHOTOS={tmp_path}/nowhere is not a folder"):
        find_own_photos(tmp_path / "nowhere", SUFFIXES)


def test_a_folder_without_photos_says_which_names_count(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"holds no photos; their names end in \.jpg, \.png"):
        find_own_photos(write_photos(tmp_path, "notes.txt"), SUFFIXES)


def test_a_stack_holds_one_catalog(tmp_path: Path) -> None:
    stack, own = tmp_path / "stack", tmp_path / "photos"
    stack.mkdir()
    reserve_stack(stack, own)
    reserve_stack(stack, own)
    with pytest.raises(PermanentError, match=f"holds {own}: run `make reset`.*, or `make demo PHOTOS={own}`"):
        reserve_stack(stack, None)


def test_the_sample_is_not_mixed_with_own_photos(tmp_path: Path) -> None:
    reserve_stack(tmp_path, None)
    with pytest.raises(PermanentError, match=r"holds the sample catalog: .* or `make demo` again"):
        reserve_stack(tmp_path, tmp_path / "photos")


def test_a_second_demo_remembers_what_the_encoder_reads(tmp_path: Path) -> None:
    own = tmp_path / "photos"
    write_demo_record(tmp_path, DemoRecord(str(own), reads_texts=False))
    reserve_stack(tmp_path, own)
    assert read_demo_record(tmp_path) == DemoRecord(str(own), reads_texts=False)


def test_only_new_bytes_are_uploaded(shop: Shop, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "shop", "1.jpg", "hat/2.jpg")
    photos = find_own_photos(folder, SUFFIXES)
    assert upload_photos(shop.connections, photos) == 2
    assert upload_photos(shop.connections, photos) == 0
    (folder / "1.jpg").write_bytes(make_photo(9, (32, 40)))
    assert upload_photos(shop.connections, photos) == 1
    source = shop.connections.source
    listed = [item.key for page in shop.connections.store.list_pages(source) for item in page]
    assert sorted(listed) == [f"{source.key}1.jpg", f"{source.key}hat/2.jpg"]
