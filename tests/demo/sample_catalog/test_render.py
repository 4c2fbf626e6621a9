import csv
import hashlib
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from demo.sample_catalog import SampleCatalog, SampleCatalogSpec, render_sample_catalog
from demo.sample_catalog.products import CATEGORIES
from jobs.errors import PermanentError

SPEC = SampleCatalogSpec(seed=3, labeled_products=28, unlabeled_products=14, duplicates=3)
PROJECT_ROOT = Path(__file__).resolve().parents[3]
PRODUCT_ID_PATTERN = r"(?P<product_id>[^/]+?)(?:[_-]\d{1,2})?\.[^./]+$"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> SampleCatalog:
    return render_sample_catalog(tmp_path_factory.mktemp("rendered") / "catalog", SPEC, processes=1)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def list_keys(folder: Path, ignored: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path != ignored}


def hash_files(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_product_id(key: str) -> str:
    match = re.search(PRODUCT_ID_PATTERN, key)
    assert match
    return match["product_id"]


def test_equal_specs_give_equal_bytes_with_any_number_of_processes(catalog: SampleCatalog, tmp_path: Path) -> None:
    assert hash_files(render_sample_catalog(tmp_path, SPEC, processes=2).folder) == hash_files(catalog.folder)


def test_another_seed_gives_other_images(catalog: SampleCatalog, tmp_path: Path) -> None:
    small = replace(SPEC, seed=4, labeled_products=0, unlabeled_products=2, duplicates=0)
    other = hash_files(render_sample_catalog(tmp_path, small, processes=1).unlabeled_folder)
    assert other["sku00001_1.jpg"] not in hash_files(catalog.folder).values()


def test_every_labeled_image_has_label_text_and_product(catalog: SampleCatalog) -> None:
    rows = read_table(catalog.labels_file)
    assert list(rows[0]) == ["image", "label", "text", "group"]
    assert sorted(row["image"] for row in rows) == sorted(list_keys(catalog.labeled_folder, catalog.labels_file))
    for row in rows:
        assert row["image"].startswith(f"{row['label']}/")
        assert row["group"] == read_product_id(row["image"])
        assert row["label"] in row["text"]


def test_every_unlabeled_file_has_a_row_in_the_products_file(catalog: SampleCatalog) -> None:
    rows = read_table(catalog.products_file)
    assert list(rows[0]) == ["image", "description", "display name", "category"]
    assert sorted(row["image"] for row in rows) == sorted(list_keys(catalog.unlabeled_folder, catalog.products_file))
    assert all(row["category"] in row["description"] for row in rows)


def test_unlabeled_images_of_a_product_share_one_description(catalog: SampleCatalog) -> None:
    descriptions: dict[str, set[str]] = {}
    for row in read_table(catalog.products_file):
        descriptions.setdefault(read_product_id(row["image"]), set()).add(row["description"])
    assert all(len(texts) == 1 for texts in descriptions.values())


def test_truth_covers_every_file_and_expects_six_failures(catalog: SampleCatalog) -> None:
    rows = read_table(catalog.truth_file)
    assert list(rows[0]) == ["image", "category", "expected", "kind"]
    assert sorted(row["image"] for row in rows) == sorted(list_keys(catalog.unlabeled_folder, catalog.products_file))
    shop_categories = {row["image"]: row["category"] for row in read_table(catalog.products_file)}
    for row in rows:
        assert row["category"] == (shop_categories[row["image"]] if row["expected"] == "tagged" else "")
    assert Counter(row["expected"] for row in rows)["failed"] == 6


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the broken EXIF
def test_files_that_are_expected_to_be_tagged_can_be_decoded(catalog: SampleCatalog) -> None:
    for row in read_table(catalog.truth_file):
        if row["expected"] == "tagged":
            with Image.open(catalog.unlabeled_folder / row["image"]) as image:
                image.load()
                assert 300 <= max(image.size) <= 1600


def test_both_parts_contain_every_category_and_share_no_product(catalog: SampleCatalog) -> None:
    labels, truth = read_table(catalog.labels_file), read_table(catalog.truth_file)
    every_category = {category.name for category in CATEGORIES}
    assert {row["label"] for row in labels} == every_category
    assert {row["category"] for row in truth if row["kind"] == "photo"} == every_category
    assert {row["group"] for row in labels}.isdisjoint(read_product_id(row["image"]) for row in truth)


def test_products_have_one_to_four_images(catalog: SampleCatalog) -> None:
    images = Counter(row["group"] for row in read_table(catalog.labels_file))
    assert set(images.values()) == {1, 2, 3, 4}


def test_duplicates_have_the_bytes_of_another_image(catalog: SampleCatalog) -> None:
    hashes = hash_files(catalog.unlabeled_folder)
    duplicates = [row["image"] for row in read_table(catalog.truth_file) if row["kind"] == "duplicate"]
    assert len(duplicates) == 3
    copies = Counter(hashes.values())
    assert all(copies[hashes[key]] == 2 for key in duplicates)
    assert sum(copies.values()) - len(copies) == 3


def test_complete_catalog_is_not_rendered_again(tmp_path: Path) -> None:
    spec = replace(SPEC, labeled_products=1, unlabeled_products=1, duplicates=0)
    image = render_sample_catalog(tmp_path, spec, processes=1).unlabeled_folder / "sku00001_1.jpg"
    image.write_bytes(b"left alone")
    render_sample_catalog(tmp_path, spec, processes=1)
    assert image.read_bytes() == b"left alone"


def test_another_spec_replaces_the_catalog(tmp_path: Path) -> None:
    spec = replace(SPEC, labeled_products=2, unlabeled_products=3, duplicates=1)
    render_sample_catalog(tmp_path / "reused", spec, processes=1)
    smaller = replace(spec, labeled_products=1, unlabeled_products=1)
    reused = render_sample_catalog(tmp_path / "reused", smaller, processes=1)
    fresh = render_sample_catalog(tmp_path / "fresh", smaller, processes=1)
    assert hash_files(reused.folder) == hash_files(fresh.folder)


def test_killed_rendering_leaves_no_process_and_is_repeated(catalog: SampleCatalog, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from demo.sample_catalog import *;"
        f"render_sample_catalog(Path(sys.argv[1]), {SPEC!r}, processes=2)"
    )
    renderer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT_ROOT)
    while not list(tmp_path.rglob("*.jpg")):
        assert renderer.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(renderer.pid).children()
    renderer.kill()
    renderer.wait()
    assert workers
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert len(hash_files(tmp_path)) < len(hash_files(catalog.folder))
    render_sample_catalog(tmp_path, SPEC, processes=1)
    assert hash_files(tmp_path) == hash_files(catalog.folder)


def test_more_duplicates_than_products_are_rejected() -> None:
    with pytest.raises(ValueError, match="duplicates=3: must be at most 2"):
        SampleCatalogSpec(unlabeled_products=2, duplicates=3)


def test_folder_with_other_files_is_rejected_and_not_changed(tmp_path: Path) -> None:
    photo = tmp_path / "labeled" / "mine.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    with pytest.raises(PermanentError, match="contains other files"):
        render_sample_catalog(tmp_path, SPEC, processes=1)
    assert photo.read_bytes() == b"mine"
