"""Render the sample catalog: a labeled part to train on, and an unlabeled part like a shop's bucket.

FOLDER/
    labeled/labels.csv              image, label, text, group
    labeled/CATEGORY/lab00012_1.jpg
    unlabeled/products.csv          image, description, display name, category: one row for each file
    unlabeled/sku00012_1.jpg        flat names that do not reveal the category
    unlabeled/sku90001_1.jpg        the same bytes under a second key
    unlabeled/broken/ ...           see ``odd_files``
    truth.csv                        image, category, expected (tagged or failed), kind
    sample_catalog.json              what was rendered, and whether it is complete
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from demo.sample_catalog.odd_files import ODD_FILES, OddFile, design_odd_product
from demo.sample_catalog.product_images import (
    LABELED,
    UNLABELED,
    CatalogPart,
    ImageRecord,
    RenderTask,
    make_record,
    render_products,
)
from demo.sample_catalog.products import CATEGORIES
from jobs.errors import ConfigurationError

_FIRST_DUPLICATE = 90_001


@dataclass(frozen=True)
class SampleCatalogSpec:
    """The seed and size of a catalog. A product has 2.5 images on average. Equal specs give equal bytes.

    By default, less than 1 % of the unlabeled part is unreadable.
    """

    seed: int = 7
    labeled_products: int = 1500
    unlabeled_products: int = 260
    duplicates: int = 12

    def __post_init__(self) -> None:
        if self.duplicates > self.unlabeled_products:
            raise ValueError(f"duplicates={self.duplicates}: must be at most {self.unlabeled_products}")


@dataclass(frozen=True)
class SampleCatalog:
    """The files of a rendered catalog."""

    folder: Path

    @property
    def labeled_folder(self) -> Path:
        return self.folder / "labeled"

    @property
    def labels_file(self) -> Path:
        return self.labeled_folder / "labels.csv"

    @property
    def unlabeled_folder(self) -> Path:
        return self.folder / "unlabeled"

    @property
    def products_file(self) -> Path:
        return self.unlabeled_folder / "products.csv"

    @property
    def truth_file(self) -> Path:
        return self.folder / "truth.csv"

    @property
    def state_file(self) -> Path:
        return self.folder / "sample_catalog.json"


def render_sample_catalog(folder: Path, spec: SampleCatalogSpec, processes: int | None = None) -> SampleCatalog:
    """Render the catalog, unless ``folder`` already contains it. By default, use one process per core.

    Replace a catalog that is incomplete, or that was rendered from another spec or by other drawing code.

    Raises:
        ConfigurationError: ``folder`` contains other files.
    """
    catalog = SampleCatalog(folder)
    fingerprint = _fingerprint_catalog(spec)
    if _read_state(catalog) == {"fingerprint": fingerprint, "is_complete": True}:
        return catalog
    _clear_folder(catalog)
    _write_state(catalog, fingerprint, is_complete=False)
    _render_parts(catalog, spec, processes or os.cpu_count() or 1)
    _write_state(catalog, fingerprint, is_complete=True)
    return catalog


def _fingerprint_catalog(spec: SampleCatalogSpec) -> str:
    """Return a hash of the spec and the drawing code."""
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _read_state(catalog: SampleCatalog) -> object:
    try:
        return json.loads(catalog.state_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write_state(catalog: SampleCatalog, fingerprint: str, *, is_complete: bool) -> None:
    catalog.state_file.write_text(json.dumps({"fingerprint": fingerprint, "is_complete": is_complete}))


def _clear_folder(catalog: SampleCatalog) -> None:
    """Delete an earlier catalog. Fail if the folder contains files but no catalog."""
    catalog.folder.mkdir(parents=True, exist_ok=True)
    if any(catalog.folder.iterdir()) and not catalog.state_file.exists():
        raise ConfigurationError(f"{catalog.folder} contains other files: choose an empty folder")
    for part_folder in (catalog.labeled_folder, catalog.unlabeled_folder):
        shutil.rmtree(part_folder, ignore_errors=True)
        part_folder.mkdir()
    for category in CATEGORIES:
        (catalog.labeled_folder / category.name).mkdir()
    catalog.truth_file.unlink(missing_ok=True)


def _render_parts(catalog: SampleCatalog, spec: SampleCatalogSpec, processes: int) -> None:
    labeled = _list_tasks(LABELED, spec.labeled_products, catalog.labeled_folder, spec.seed)
    unlabeled = _list_tasks(UNLABELED, spec.unlabeled_products, catalog.unlabeled_folder, spec.seed)
    records = render_products([*unlabeled, *labeled], processes)
    images = [record for group in records[: len(unlabeled)] for record in group]
    _write_labels(catalog, [record for group in records[len(unlabeled) :] for record in group])
    duplicates = _copy_images(catalog, images, spec)
    odd_images = [_write_odd_file(catalog, odd_file, spec.seed) for odd_file in ODD_FILES]
    _write_products(catalog, [*images, *duplicates, *odd_images])
    _write_truth(catalog, images, duplicates)


def _list_tasks(part: CatalogPart, products: int, folder: Path, seed: int) -> list[RenderTask]:
    """Return tasks in random order, with the same number of products in each category."""
    categories = [CATEGORIES[index % len(CATEGORIES)] for index in range(products)]
    Random(f"{seed}/{part.id_prefix}/order").shuffle(categories)
    return [
        RenderTask(seed, f"{part.id_prefix}{number:05}", category, part, folder)
        for number, category in enumerate(categories, start=1)
    ]


def _copy_images(catalog: SampleCatalog, images: Sequence[ImageRecord], spec: SampleCatalogSpec) -> list[ImageRecord]:
    """Copy some images, each as a new product."""
    originals = Random(f"{spec.seed}/duplicates").sample(images, spec.duplicates)
    copies = []
    for number, original in enumerate(originals, start=_FIRST_DUPLICATE):
        product_id = f"{UNLABELED.id_prefix}{number}"
        copy = replace(original, key=f"{product_id}_1.jpg", product_id=product_id)
        shutil.copyfile(catalog.unlabeled_folder / original.key, catalog.unlabeled_folder / copy.key)
        copies.append(copy)
    return copies


def _write_odd_file(catalog: SampleCatalog, odd_file: OddFile, seed: int) -> ImageRecord:
    product, rng = design_odd_product(seed, odd_file), Random(f"{seed}/{odd_file.key}")
    path = catalog.unlabeled_folder / odd_file.key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(odd_file.encode(product, rng))
    return make_record(product, odd_file.key, odd_file.key, rng)


def _write_labels(catalog: SampleCatalog, images: Iterable[ImageRecord]) -> None:
    rows = ((image.key, image.category_name, image.description, image.product_id) for image in images)
    _write_table(catalog.labels_file, ("image", "label", "text", "group"), rows)


def _write_products(catalog: SampleCatalog, images: Iterable[ImageRecord]) -> None:
    rows = ((image.key, image.description, image.display_name, image.category_name) for image in images)
    _write_table(catalog.products_file, ("image", "description", "display name", "category"), rows)


def _write_truth(catalog: SampleCatalog, images: Iterable[ImageRecord], duplicates: Iterable[ImageRecord]) -> None:
    rows = [(image.key, image.category_name, "tagged", "photo") for image in images]
    rows += [(image.key, image.category_name, "tagged", "duplicate") for image in duplicates]
    for odd_file in ODD_FILES:
        shown = (odd_file.category_name, "tagged") if odd_file.is_readable else ("", "failed")
        rows.append((odd_file.key, *shown, odd_file.kind))
    _write_table(catalog.truth_file, ("image", "category", "expected", "kind"), rows)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
