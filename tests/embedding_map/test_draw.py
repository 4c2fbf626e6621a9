"""The map follows the vectors of the live space, in one step, and changes as little as possible."""

import numpy as np
import pytest
from sqlalchemy import Engine, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, open_live_space
from jobs.database import maps
from jobs.database.maps import MapSample, replace_map
from jobs.database.spaces import drop_space, read_live_space
from jobs.embedding_map import draw
from jobs.embedding_map.draw import draw_map, try_to_draw_map


@pytest.fixture
def space_id(engine: Engine) -> int:
    with engine.begin() as connection:
        return open_live_space(connection, 4)


def add(engine: Engine, space_id: int, count: int, cluster: int = 0) -> list[int]:
    """Add images in the direction of one axis."""
    random = np.random.default_rng(count)
    vectors = np.eye(4)[cluster] + 0.1 * random.normal(size=(count, 4))
    images = [NewImage(f"P{number}", None, tuple(vector.tolist())) for number, vector in enumerate(vectors)]
    with engine.begin() as connection:
        return add_images(connection, images, space_id, None)


def read_points(engine: Engine) -> dict[int, tuple[float, float]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT image_id, position[0], position[1] FROM catalog.map_points"))
        return {image_id: (x, y) for image_id, x, y in rows}


def test_a_catalog_without_vectors_has_no_map(engine: Engine) -> None:
    assert draw_map(engine).state == "no vectors"
    with engine.begin() as connection:
        open_live_space(connection, 4)
    assert draw_map(engine).state == "no vectors"


def test_every_image_with_a_vector_has_a_point(engine: Engine, space_id: int) -> None:
    image_ids = [*add(engine, space_id, 30), *add(engine, space_id, 31, cluster=1)]
    with engine.begin() as connection:
        add_images(connection, [NewImage("P1", None, None)], space_id, None)
        delete_images(connection, image_ids[:1])
    report = draw_map(engine)
    assert (report.state, report.points, report.added) == ("arranged", 60, 60)
    points = read_points(engine)
    assert list(points) == image_ids[1:]
    halves = [np.array([points[image_id] for image_id in part]) for part in (image_ids[1:30], image_ids[30:])]
    within = max(float(half.std(axis=0).max()) for half in halves)
    assert np.linalg.norm(halves[0].mean(axis=0) - halves[1].mean(axis=0)) > 2 * within


def test_an_unchanged_map_is_not_read_again(engine: Engine, space_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add(engine, space_id, 20)
    draw_map(engine)
    before = read_points(engine)
    monkeypatch.setattr(draw, "read_vectors", None)
    assert draw_map(engine).state == "unchanged"
    assert read_points(engine) == before


def test_few_new_images_move_no_other_point(engine: Engine, space_id: int) -> None:
    known = [*add(engine, space_id, 40), *add(engine, space_id, 41, cluster=1)]
    draw_map(engine)
    before = read_points(engine)
    (new,) = add(engine, space_id, 1, cluster=1)
    report = draw_map(engine)
    assert (report.state, report.points, report.added) == ("extended", 82, 1)
    after = read_points(engine)
    assert {image_id: after[image_id] for image_id in known} == before
    distances = {image_id: np.linalg.norm(np.subtract(after[new], before[image_id])) for image_id in known}
    assert min(distances, key=lambda image_id: distances[image_id]) in known[40:]


def test_many_new_images_arrange_the_map_again(engine: Engine, space_id: int) -> None:
    add(engine, space_id, 40)
    draw_map(engine)
    # Extensions add up.
    states = []
    for count in (3, 2, 1):
        add(engine, space_id, count)
        states.append(draw_map(engine).state)
    assert states == ["extended", "arranged", "extended"]


def test_a_deleted_image_leaves_the_map(engine: Engine, space_id: int) -> None:
    image_ids = add(engine, space_id, 20)
    draw_map(engine)
    before = read_points(engine)
    with engine.begin() as connection:
        delete_images(connection, image_ids[:1])
    assert draw_map(engine).state == "extended"
    del before[image_ids[0]]
    assert read_points(engine) == before


def test_an_image_with_a_new_vector_is_placed_again(engine: Engine, space_id: int) -> None:
    first, second = add(engine, space_id, 40), add(engine, space_id, 41, cluster=1)
    draw_map(engine)
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE catalog.image_embeddings SET embedded_at = now() + interval '1 second',
                    embedding = (SELECT embedding FROM catalog.image_embeddings WHERE image_id = :other)
                WHERE image_id = :image
            """),
            {"image": first[0], "other": second[0]},
        )
    assert draw_map(engine).added == 1
    points = read_points(engine)
    other = np.mean([points[image_id] for image_id in second], axis=0)
    own = np.mean([points[image_id] for image_id in first[1:]], axis=0)
    assert np.linalg.norm(points[first[0]] - other) < np.linalg.norm(points[first[0]] - own)


def test_the_sample_is_bounded_and_stays_the_same(
    engine: Engine, space_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(engine, space_id, 30)
    monkeypatch.setattr(maps, "MAX_POINTS", 20)
    assert draw_map(engine).points == 20
    before = set(read_points(engine))
    monkeypatch.setattr(maps, "MAX_POINTS", 22)
    draw_map(engine)
    assert before < set(read_points(engine))


def test_readers_see_the_old_map_until_the_new_one_is_complete(engine: Engine, space_id: int) -> None:
    image_ids = add(engine, space_id, 3)
    draw_map(engine)
    before = read_points(engine)
    with engine.connect() as connection:
        sample = maps.read_map_sample(connection, read_live_space(connection))
    with engine.connect() as connection, connection.begin() as transaction:
        replace_map(connection, space_id, MapSample(sample.image_ids, sample.embedded_at, sample.positions + 1), 0)
        assert read_points(engine) == before
        transaction.commit()
    assert {*read_points(engine)} == {*image_ids}
    assert read_points(engine) != before


def test_a_failure_keeps_the_map_and_does_not_fail_the_run(
    engine: Engine, space_id: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(engine, space_id, 20)
    draw_map(engine)
    before = read_points(engine)
    add(engine, space_id, 20)
    monkeypatch.setattr(draw, "replace_map", None)
    try_to_draw_map(engine, "run")
    assert "the old one stays" in caplog.text
    assert read_points(engine) == before


def test_a_dropped_space_has_no_map(engine: Engine, space_id: int) -> None:
    add(engine, space_id, 3)
    draw_map(engine)
    with engine.begin() as connection:
        open_live_space(connection, 4)
        drop_space(connection, space_id)
    assert read_points(engine) == {}
