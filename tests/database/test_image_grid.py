"""Filters combine, and pages neither repeat nor skip an image."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, label_image, open_live_space, register_model
from jobs.database import image_grid
from jobs.database.image_filters import BadCursorError, ImageFilter, Sort, write_cursor
from jobs.database.image_grid import ImageCount, ImagePage, read_image_page
from jobs.database.maps import MapSample, replace_map
from tests.database.conftest import IMAGES, SmallCatalog

EVERYTHING = ["untagged", "labeled", "sandal", "boot", "hat", "blue", "red"]


def read_names(connection: Connection, catalog: SmallCatalog, wanted: ImageFilter, size: int = 100) -> list[str]:
    """The names of all images, read page by page."""
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = read_image_page(connection, wanted, cursor, size)
        assert len(page.images) <= size
        names += [catalog.name(image.image_id) for image in page.images]
        cursor = page.next_cursor
        if cursor is None:
            return names


@dataclass(frozen=True)
class ModelRow:
    """An image as a user describes it: its current tag, or the tag of the classifier."""

    name: str
    number: int
    product_id: str
    category: str | None
    confidence: float | None
    is_deleted: bool = False


def model_rows(catalog: SmallCatalog, wanted: ImageFilter, deleted: Sequence[str]) -> list[ModelRow]:
    """List all images. The latest label of ``labeled`` counts unless the tags of a version are selected."""
    rows = []
    for name, image in IMAGES.items():
        category, confidence = image.category, image.confidence if image.category else None
        if name == "labeled" and wanted.classifier_version_id is None:
            category, confidence = "shoes", 1.0
        number = catalog.image_ids[name]
        rows.append(ModelRow(name, number, image.product_id, category, confidence, name in deleted))
    return rows


def expect_names(catalog: SmallCatalog, wanted: ImageFilter, deleted: Sequence[str] = ()) -> list[str]:
    """Filter and sort the images in plain Python."""

    def matches(row: ModelRow) -> bool:
        lowest, highest = wanted.min_confidence, wanted.max_confidence
        if row.category is None and wanted.needs_tags:
            return False
        return (
            row.is_deleted == wanted.deleted
            and wanted.category in (None, row.category)
            and (lowest is None or (row.confidence is not None and row.confidence >= lowest))
            and (highest is None or (row.confidence is not None and row.confidence <= highest))
            and (not wanted.images_disagree or row.product_id == "P1")
            and (
                all(word in f"name of {row.product_id.lower()}".split() for word in wanted.text.lower().split())
                or row.product_id.startswith(wanted.text)
            )
        )

    keys: dict[Sort, Callable[[ModelRow], tuple[Any, ...]]] = {
        "newest": lambda row: (-row.number,),
        "oldest": lambda row: (row.number,),
        "least_confident": lambda row: (row.confidence, row.number),
        "most_confident": lambda row: (-(row.confidence or 0), -row.number),
        "name": lambda row: (row.product_id.lower(), row.number),
    }
    return [row.name for row in sorted(filter(matches, model_rows(catalog, wanted, deleted)), key=keys[wanted.sort])]


FILTERS: list[dict[str, Any]] = [
    {},
    {"category": "hat"},
    {"category": "dress"},
    {"min_confidence": 0.5},
    {"max_confidence": 0.5},
    {"min_confidence": 0.4, "max_confidence": 0.6},
    {"min_confidence": 0.5, "category": "shoes"},
    {"images_disagree": True},
    {"images_disagree": True, "category": "dress"},
    {"images_disagree": True, "max_confidence": 0.95},
    {"text": "P2"},
    {"text": "PX"},
    {"text": "name P1"},
    {"text": "P_3", "category": "shoes", "min_confidence": 0.1},
    {"category": "no such"},
]
SORTS = get_args(Sort)


@pytest.mark.parametrize("max_sorted", [100, 0])
@pytest.mark.parametrize("deleted", [(), ("hat", "labeled", "blue", "untagged")])
@pytest.mark.parametrize("sort", SORTS)
def test_filters_and_sorts_combine_on_every_page(
    connection: Connection,
    catalog: SmallCatalog,
    monkeypatch: pytest.MonkeyPatch,
    sort: Sort,
    deleted: Sequence[str],
    max_sorted: int,
) -> None:
    monkeypatch.setattr(image_grid, "MAX_SORTED", max_sorted)
    delete_images(connection, [catalog.image_ids[name] for name in deleted])
    label_image(connection, catalog.image_ids["labeled"], "shoes")
    for one in FILTERS:
        for more in ({}, {"deleted": True}, {"classifier_version_id": catalog.classifier}):
            wanted = ImageFilter(**{"sort": sort} | one | more)
            page = read_image_page(connection, wanted, None, 100)
            # Without sorting all images, they cannot be sorted by name.
            expected = expect_names(catalog, dataclasses.replace(wanted, sort=page.sort), deleted)
            assert page.sort == sort or (sort == "name" and max_sorted == 0)
            assert [catalog.name(image.image_id) for image in page.images] == expected, wanted
            assert read_names(connection, catalog, wanted, size=2) == expected, wanted
            if page.count.precision == "exact":
                assert page.count.number == len(expected), wanted
            else:
                assert max_sorted == 0


def test_large_results_are_counted_by_a_sample(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [NewImage(f"Q{number}", "hat" if number % 4 else "dress", None, 0.5) for number in range(1200)]
    add_images(connection, images, catalog.space_id, catalog.classifier)
    assert read_image_page(connection, ImageFilter(category="hat"), None, 5).count == ImageCount(902)
    monkeypatch.setattr(image_grid, "MAX_SORTED", 100)
    monkeypatch.setattr(image_grid, "SAMPLE_SIZE", 400)
    counts = {
        category: read_image_page(connection, ImageFilter(category=category), None, 5).count
        for category in ("hat", "dress", "shoes")
    }
    assert counts["shoes"] == ImageCount(2)
    assert (counts["hat"].precision, counts["dress"].precision) == ("about", "about")
    assert counts["hat"].number == pytest.approx(902, rel=0.15)
    assert counts["dress"].number == pytest.approx(302, rel=0.3)
    # No condition selects few images, but together they do.
    rare = read_image_page(connection, ImageFilter(category="hat", max_confidence=0.45), None, 5)
    assert rare.count == ImageCount(1)
    monkeypatch.setattr(image_grid, "MAX_SORTED", 0)
    rare = read_image_page(connection, ImageFilter(category="hat", max_confidence=0.45), None, 5)
    assert rare.count.precision == "fewer than"
    assert 1 < rare.count.number < 50
    assert len(rare.images) == 1


def test_a_text_for_too_many_products_is_counted_from_below(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_grid, "MAX_PRODUCTS", 2)
    page = read_image_page(connection, ImageFilter(text="name"), None, 5)
    assert page.count.precision == "more than"
    assert page.count.number == len(page.images)


@pytest.mark.parametrize("hostile", ["%", "_", "P_", "<script>alert(1)</script>", "'; DROP", "../", "\0", "\\", '"'])
def test_a_hostile_text_is_only_text(connection: Connection, catalog: SmallCatalog, hostile: str) -> None:
    names = read_names(connection, catalog, ImageFilter(text=hostile))
    # A text of nothing asks for nothing; a wildcard is a letter like others.
    assert names == {"P_": ["sandal", "boot"], "\0": EVERYTHING}.get(hostile, [])


@pytest.mark.parametrize("most_sorted", [100, 0])
def test_a_deleted_image_is_among_the_deleted_alone(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch, most_sorted: int
) -> None:
    monkeypatch.setattr(image_grid, "MAX_SORTED", most_sorted)
    delete_images(connection, [catalog.image_ids[name] for name in ("hat", "labeled", "blue", "untagged")])
    assert read_names(connection, catalog, ImageFilter()) == ["sandal", "boot", "red"]
    for wanted, names in (
        (ImageFilter(), ["untagged", "labeled", "hat", "blue"]),
        (ImageFilter(category="hat"), ["hat", "blue"]),
        (ImageFilter(min_confidence=0.1), ["labeled", "hat", "blue"]),
        (ImageFilter(images_disagree=True), ["blue"]),
        (ImageFilter(text="PX", min_confidence=0.1), ["labeled"]),
    ):
        assert read_names(connection, catalog, dataclasses.replace(wanted, deleted=True), size=1) == names
    page = read_image_page(connection, ImageFilter(deleted=True, category="hat"), None, 9)
    assert [image.is_deleted for image in page.images] == [True, True]


def test_a_card_shows_the_source_of_its_tag(connection: Connection, catalog: SmallCatalog) -> None:
    cards = {catalog.name(card.image_id): card for card in read_image_page(connection, ImageFilter(), None, 99).images}
    assert (cards["labeled"].category, cards["labeled"].source, cards["labeled"].confidence) == ("dress", "human", 1)
    assert (cards["red"].category, cards["red"].source) == ("dress", "model")
    assert cards["red"].confidence == pytest.approx(0.9)
    assert dataclasses.astuple(cards["untagged"])[3:] == (None, None, None, False, None)
    assert cards["hat"].display_name == "Name of P2"


def test_a_version_shows_its_own_tags(connection: Connection, catalog: SmallCatalog) -> None:
    own = read_names(connection, catalog, ImageFilter(classifier_version_id=catalog.classifier, category="hat"))
    assert own == ["labeled", "hat", "blue"]
    other = register_model(connection, "classifier")
    assert read_names(connection, catalog, ImageFilter(classifier_version_id=other)) == []


@pytest.mark.parametrize("most_sorted", [100, 0])
def test_a_run_shows_what_was_tagged_during_it(
    connection: Connection, catalog: SmallCatalog, monkeypatch: pytest.MonkeyPatch, most_sorted: int
) -> None:
    monkeypatch.setattr(image_grid, "MAX_SORTED", most_sorted)
    encoder = connection.execute(text("SELECT encoder_version_id FROM catalog.embedding_spaces")).scalar_one()
    for run, start in (("now", "-1 minute"), ("later", "1 minute")):
        connection.execute(
            text("""
                INSERT INTO catalog.tagging_runs (run_id, source_uri, manifest_uri, classifier_version_id,
                    encoder_version_id, space_id, discovered, entries, entries_by_reason, started_at, finished_at)
                VALUES (:run, '', '', :classifier, :encoder, :space, '{}', 0, '{}',
                        now() + CAST(:start AS interval), now() + CAST(:start AS interval) + interval '1 hour')
            """),
            {
                "run": run,
                "start": start,
                "classifier": catalog.classifier,
                "encoder": encoder,
                "space": catalog.space_id,
            },
        )
    tagged = [name for name, image in reversed(IMAGES.items()) if image.category]
    assert read_names(connection, catalog, ImageFilter(run_id="now"), size=2) == tagged
    assert read_names(connection, catalog, ImageFilter(run_id="later")) == []
    sure = ImageFilter(run_id="now", min_confidence=0.5, category="shoes")
    assert read_names(connection, catalog, sure, size=1) == ["sandal", "boot"]
    sorts: list[Sort] = ["oldest", "least_confident", "name"] if most_sorted else ["oldest", "least_confident"]
    for sort in sorts:
        wanted = dataclasses.replace(sure, sort=sort)
        assert read_names(connection, catalog, wanted, size=1) == ["boot", "sandal"], sort
    assert read_names(connection, catalog, dataclasses.replace(sure, run_id="later")) == []
    assert read_image_page(connection, ImageFilter(run_id="never", sort="name"), None, 5) == ImagePage(
        (), None, ImageCount(0), "name"
    )


@pytest.mark.parametrize("cursor", ["x", "", "%%%", "W10", write_cursor("a", 1), write_cursor(0.5, -1)])
def test_a_damaged_cursor_is_refused(connection: Connection, cursor: str) -> None:
    with pytest.raises(BadCursorError, match="start again"):
        read_image_page(connection, ImageFilter(), cursor, 5)


def test_a_cursor_of_another_order_is_refused(connection: Connection) -> None:
    with pytest.raises(BadCursorError, match="does not fit"):
        read_image_page(connection, ImageFilter(sort="most_confident"), write_cursor(None, 5), 5)
    with pytest.raises(BadCursorError, match="does not fit"):
        read_image_page(connection, ImageFilter(run_id="x"), write_cursor("no time", 5), 5)


@pytest.fixture
def map_of_names(connection: Connection, catalog: SmallCatalog) -> None:
    """A map on which the images lie on a line, 10 apart, in the order of their ids."""
    image_ids = list(catalog.image_ids.values())
    positions = np.array([(10.0 * place, 0) for place in range(len(image_ids))])
    times = (datetime.now(UTC),) * len(image_ids)
    replace_map(connection, catalog.space_id, MapSample(np.array(image_ids), times, positions), 0)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (ImageFilter(area="-1,-1;21,-1;21,1;-1,1"), ["hat", "blue", "red"]),
        # A corner of the box around this triangle is outside.
        (ImageFilter(area="-1,-1;21,1;-1,1"), ["blue", "red"]),
        (ImageFilter(area="9,-1;61,-1;61,1;9,1", category="shoes"), ["sandal", "boot"]),
        (ImageFilter(area="9,-1;61,-1;61,1;9,1", min_confidence=0.5), ["labeled", "sandal", "boot", "hat"]),
        (ImageFilter(area="9,-1;61,-1;61,1;9,1", text="P1"), ["blue"]),
        (ImageFilter(area="9,-1;61,-1;61,1;9,1", images_disagree=True), ["blue"]),
        (ImageFilter(area="1,1;2,1;2,2"), []),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.usefixtures("map_of_names")
def test_an_area_selects_the_images_in_it(
    connection: Connection, catalog: SmallCatalog, wanted: ImageFilter, names: list[str], size: int
) -> None:
    assert read_names(connection, catalog, wanted, size) == names


@pytest.mark.usefixtures("map_of_names")
def test_an_area_is_one_of_the_live_space(connection: Connection, catalog: SmallCatalog) -> None:
    open_live_space(connection, 3)
    assert read_names(connection, catalog, ImageFilter(area="-1,-1;21,-1;21,1;-1,1")) == []
