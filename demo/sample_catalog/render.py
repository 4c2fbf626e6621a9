"""Renders the sample catalog: a labelled part to train on and an unlabelled part as a shop's bucket holds it.

FOLDER/
    labelled/labels.csv              image, label, text, group
    labelled/CATEGORY/lab00012_1.jpg
    unlabelled/products.csv          image, description, display name, category: a row for every file
    unlabelled/sku00012_1.jpg        flat names that say nothing of the category
    unlabelled/sku90001_1.jpg        the same bytes under a second key
    unlabelled/broken/ ...           see ``odd_files``
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

from demo.sample_catalog.garments import CATEGORIES
from demo.sample_catalog.odd_files import ODD_FILES, OddFile, design_odd_product
from demo.sample_catalog.photo_shoot import (
    LABELLED,
    UNLABELLED,
    Part,
    PhotoRecord,
    ShootOrder,
    record_photo,
    shoot_products,
)
from jobs.errors import ConfigurationError

_FIRST_DUPLICATE = 90_001


@dataclass(frozen=True)
class SampleCatalogSpec:
    """What to render; a product has 2.5 photos on average. Equal specs give equal bytes.

    The default leaves the unreadable files below 1 % of the unlabelled part.
    """

    seed: int = 7
    labelled_products: int = 1500
    unlabelled_products: int = 260
    duplicates: int = 12

    def __post_init__(self) -> None:
        if self.duplicates > self.unlabelled_products:
            raise ValueError("duplicates: at most one for each unlabelled product")


@dataclass(frozen=True)
class SampleCatalog:
    """A rendered catalog, by its files."""

    folder: Path

    @property
    def labelled_folder(self) -> Path:
        return self.folder / "labelled"

    @property
    def labels_file(self) -> Path:
        return self.labelled_folder / "labels.csv"

    @property
    def unlabelled_folder(self) -> Path:
        return self.folder / "unlabelled"

    @property
    def products_file(self) -> Path:
        return self.unlabelled_folder / "products.csv"

    @property
    def truth_file(self) -> Path:
        return self.folder / "truth.csv"

    @property
    def state_file(self) -> Path:
        return self.folder / "sample_catalog.json"


def render_sample_catalog(folder: Path, spec: SampleCatalogSpec, processes: int | None = None) -> SampleCatalog:
    """Render the catalog, or return at once if ``folder`` holds this one already.

    A catalog of another spec, of older drawing code or of an interrupted rendering is replaced.
    ``processes``: by default one for each core.

    Raises:
        ConfigurationError: ``folder`` holds something else.
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
    """A hash of the spec and of the code that draws."""
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
    """Empty the folder of an earlier catalog; touch nothing in a folder that never held one."""
    catalog.folder.mkdir(parents=True, exist_ok=True)
    if any(catalog.folder.iterdir()) and not catalog.state_file.exists():
        raise ConfigurationError(f"{catalog.folder} holds other files: name an empty folder for the sample catalog")
    for part_folder in (catalog.labelled_folder, catalog.unlabelled_folder):
        shutil.rmtree(part_folder, ignore_errors=True)
        part_folder.mkdir()
    for category in CATEGORIES:
        (catalog.labelled_folder / category.name).mkdir()
    catalog.truth_file.unlink(missing_ok=True)


def _render_parts(catalog: SampleCatalog, spec: SampleCatalogSpec, processes: int) -> None:
    labelled = _order_part(LABELLED, spec.labelled_products, catalog.labelled_folder, spec.seed)
    unlabelled = _order_part(UNLABELLED, spec.unlabelled_products, catalog.unlabelled_folder, spec.seed)
    records = shoot_products([*unlabelled, *labelled], processes)
    photos = [record for group in records[: len(unlabelled)] for record in group]
    _write_labels(catalog, [record for group in records[len(unlabelled) :] for record in group])
    duplicates = _copy_photos(catalog, photos, spec)
    odd_photos = [_write_odd_file(catalog, odd_file, spec.seed) for odd_file in ODD_FILES]
    _write_products(catalog, [*photos, *duplicates, *odd_photos])
    _write_truth(catalog, photos, duplicates)


def _order_part(part: Part, products: int, folder: Path, seed: int) -> list[ShootOrder]:
    """As many products of each category, in an order that does not tell which is which."""
    categories = [CATEGORIES[index % len(CATEGORIES)] for index in range(products)]
    Random(f"{seed}/{part.id_prefix}/order").shuffle(categories)
    return [
        ShootOrder(seed, f"{part.id_prefix}{number:05}", category, part, folder)
        for number, category in enumerate(categories, start=1)
    ]


def _copy_photos(catalog: SampleCatalog, photos: Sequence[PhotoRecord], spec: SampleCatalogSpec) -> list[PhotoRecord]:
    """Upload some photos a second time, each as a product of its own."""
    originals = Random(f"{spec.seed}/duplicates").sample(photos, spec.duplicates)
    copies = []
    for number, original in enumerate(originals, start=_FIRST_DUPLICATE):
        product_id = f"{UNLABELLED.id_prefix}{number}"
        copy = replace(original, key=f"{product_id}_1.jpg", product_id=product_id)
        shutil.copyfile(catalog.unlabelled_folder / original.key, catalog.unlabelled_folder / copy.key)
        copies.append(copy)
    return copies


def _write_odd_file(catalog: SampleCatalog, odd_file: OddFile, seed: int) -> PhotoRecord:
    product, rng = design_odd_product(seed, odd_file), Random(f"{seed}/{odd_file.key}")
    path = catalog.unlabelled_folder / odd_file.key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(odd_file.encode(product, rng))
    return record_photo(product, odd_file.key, odd_file.key, rng)


def _write_labels(catalog: SampleCatalog, photos: Iterable[PhotoRecord]) -> None:
    rows = ((photo.key, photo.category_name, photo.description, photo.product_id) for photo in photos)
    _write_table(catalog.labels_file, ("image", "label", "text", "group"), rows)


def _write_products(catalog: SampleCatalog, photos: Iterable[PhotoRecord]) -> None:
    rows = ((photo.key, photo.description, photo.display_name, photo.category_name) for photo in photos)
    _write_table(catalog.products_file, ("image", "description", "display name", "category"), rows)


def _write_truth(catalog: SampleCatalog, photos: Iterable[PhotoRecord], duplicates: Iterable[PhotoRecord]) -> None:
    rows = [(photo.key, photo.category_name, "tagged", "photo") for photo in photos]
    rows += [(photo.key, photo.category_name, "tagged", "duplicate") for photo in duplicates]
    for odd_file in ODD_FILES:
        shown = (odd_file.category_name, "tagged") if odd_file.is_readable else ("", "failed")
        rows.append((odd_file.key, *shown, odd_file.kind))
    _write_table(catalog.truth_file, ("image", "category", "expected", "kind"), rows)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
