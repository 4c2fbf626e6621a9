"""Filters combine, and pages neither repeat nor skip an image."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import delete_images, open_live_space, register_model
from jobs.database import image_grid
from jobs.database.image_grid import BadCursorError, ImageFilter, read_image_page, write_cursor
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


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (ImageFilter(), EVERYTHING),
        (ImageFilter(category="hat"), ["hat", "blue"]),
        (ImageFilter(category="dress"), ["labeled", "red"]),
        (ImageFilter(min_confidence=0.5), ["boot", "sandal", "red", "hat", "labeled"]),
        (ImageFilter(max_confidence=0.5), ["blue"]),
        (ImageFilter(min_confidence=0.5, category="shoes"), ["boot", "sandal"]),
        (ImageFilter(images_disagree=True), ["blue", "red"]),
        (ImageFilter(images_disagree=True, category="dress"), ["red"]),
        (ImageFilter(text="p2"), ["hat"]),
        (ImageFilter(text="PX"), ["untagged", "labeled"]),
        (ImageFilter(text="name P1"), ["blue", "red"]),
        (ImageFilter(text="P_3", category="shoes", min_confidence=0.1), ["boot", "sandal"]),
        (ImageFilter(category="no such"), []),
        (ImageFilter(deleted=True), []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_filters_combine_on_every_page(
    connection: Connection, catalog: SmallCatalog, wanted: ImageFilter, names: list[str], size: int
) -> None:
    assert read_names(connection, catalog, wanted, size) == names


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
        (ImageFilter(min_confidence=0.1), ["blue", "hat", "labeled"]),
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
    assert read_names(connection, catalog, sure, size=1) == ["boot", "sandal"]
    assert read_names(connection, catalog, dataclasses.replace(sure, run_id="later")) == []
    assert read_names(connection, catalog, ImageFilter(run_id="never")) == []


@pytest.mark.parametrize("cursor", ["x", "", "%%%", "W10", write_cursor("a", 1), write_cursor(0.5, -1)])
def test_a_damaged_cursor_is_refused(connection: Connection, cursor: str) -> None:
    with pytest.raises(BadCursorError, match="start again"):
        read_image_page(connection, ImageFilter(), cursor, 5)


def test_a_cursor_of_another_order_is_refused(connection: Connection) -> None:
    with pytest.raises(BadCursorError, match="does not fit"):
        read_image_page(connection, ImageFilter(min_confidence=0.5), write_cursor(None, 5), 5)
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
        (ImageFilter(area="9,-1;61,-1;61,1;9,1", min_confidence=0.5), ["boot", "sandal", "hat", "labeled"]),
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
