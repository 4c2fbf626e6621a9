from pathlib import Path

import pytest

from demo.inputs import (
    DemoRecord,
    choose_bases,
    find_own_images,
    read_demo_record,
    reserve_stack,
    upload_images,
    write_demo_record,
)
from fixtures.shop import Shop, TinyModels, make_image
from jobs.errors import PermanentError
from jobs.models.classifier import read_categories

SUFFIXES = (".jpg", ".png")


def write_images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(number, (32, 40)))
    return folder


def test_subfolders_are_labels(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "shop", "dress/1.jpg", "dress/2.JPG", "hat/1.jpg", "hat/old/3.jpg")
    images = find_own_images(folder, SUFFIXES)
    assert images.labels == ("folders", folder)
    assert [path.relative_to(folder).as_posix() for path in images.files] == [
        "dress/1.jpg",
        "dress/2.JPG",
        "hat/1.jpg",
        "hat/old/3.jpg",
    ]


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("all/1.jpg", "all/2.jpg"), ("1.jpg", "all/2.jpg")])
def test_fewer_than_two_subfolders_are_not_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = find_own_images(write_images(tmp_path / "shop", *names), SUFFIXES)
    assert len(images.files) == 2
    assert images.labels is None


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "shop", "1.jpg", ".trash/2.jpg", ".3.jpg", "readme.txt", "labels/list.csv")
    images = find_own_images(folder, SUFFIXES)
    assert [path.name for path in images.files] == ["1.jpg"]
    assert images.labels is None


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=f"PHOTOS={tmp_path}/nowhere is not a folder"):
        find_own_images(tmp_path / "nowhere", SUFFIXES)


def test_folder_without_images_is_reported_with_valid_suffixes(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"contains no images, which are files named \.jpg, \.png"):
        find_own_images(write_images(tmp_path, "notes.txt"), SUFFIXES)


def test_stack_contains_one_catalog(tmp_path: Path) -> None:
    stack, own = tmp_path / "stack", tmp_path / "images"
    stack.mkdir()
    reserve_stack(stack, own)
    reserve_stack(stack, own)
    with pytest.raises(PermanentError, match=f"contains {own}: run `make reset`.*, or `make demo PHOTOS={own}`"):
        reserve_stack(stack, None)


def test_sample_is_not_mixed_with_own_images(tmp_path: Path) -> None:
    reserve_stack(tmp_path, None)
    with pytest.raises(PermanentError, match=r"contains the sample catalog: .* or `make demo` to continue"):
        reserve_stack(tmp_path, tmp_path / "images")


def test_second_demo_remembers_whether_the_encoder_reads_texts(tmp_path: Path) -> None:
    own = tmp_path / "images"
    write_demo_record(tmp_path, DemoRecord(str(own), reads_texts=False))
    reserve_stack(tmp_path, own)
    assert read_demo_record(tmp_path) == DemoRecord(str(own), reads_texts=False)


def test_only_new_bytes_are_uploaded(shop: Shop, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "shop", "1.jpg", "hat/2.jpg")
    images = find_own_images(folder, SUFFIXES)
    assert upload_images(shop.connections, images) == 2
    assert upload_images(shop.connections, images) == 0
    (folder / "1.jpg").write_bytes(make_image(9, (32, 40)))
    assert upload_images(shop.connections, images) == 1
    source = shop.connections.source
    listed = [item.key for page in shop.connections.store.list_pages(source) for item in page]
    assert sorted(listed) == [f"{source.key}1.jpg", f"{source.key}hat/2.jpg"]


def test_configured_bases_are_used(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    chosen = {"classifier_base": str(tiny_models.classifier), "encoder_base": str(tiny_models.encoder)}
    settings = shop.with_settings(**chosen).settings
    bases = choose_bases(
        find_own_images(write_images(tmp_path / "shop", "dress/1.jpg", "hat/2.jpg"), SUFFIXES),
        settings,
        tmp_path / "bases",
    )
    assert bases["classifier"].folder == tiny_models.classifier
    assert not bases["encoder"].has_random_weights
    assert bases["encoder"].reason == f"{tiny_models.encoder}, from CATALOG_ENCODER_BASE"


def test_base_that_cannot_be_loaded_is_replaced_by_random_weights_with_a_reason(shop: Shop, tmp_path: Path) -> None:
    settings = shop.with_settings(classifier_base="/no/such/base", encoder_base="/no/such/base").settings
    images = find_own_images(write_images(tmp_path / "shop", "dress/1.jpg", "hat/2.jpg"), SUFFIXES)
    bases = choose_bases(images, settings, tmp_path / "bases")
    assert bases["classifier"].has_random_weights
    assert read_categories(bases["classifier"].folder) == ("dress", "hat")
    assert bases["encoder"].reason.startswith("random weights, because CATALOG_ENCODER_BASE=/no/such/base")
    written = (bases["encoder"].folder / "model.safetensors").stat().st_mtime_ns

    again = choose_bases(images, settings, tmp_path / "bases")
    assert again == bases
    assert (again["encoder"].folder / "model.safetensors").stat().st_mtime_ns == written
