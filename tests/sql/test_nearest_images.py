import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import (
    NewImage,
    add_images,
    delete_images,
    label_image,
    open_live_space,
    promote_model,
    unit_vectors,
)
from jobs.database.spaces import open_space
from jobs.database.vector_codes import renew_vector_codes
from tests.sql.conftest import DIMENSIONS, LargeCatalog, Models
from tests.sql.questions import ROUTES, find_nearest, refused, take_route


def test_gives_the_columns_that_people_read(connection: Connection, models: Models) -> None:
    new = [
        NewImage("p1", "dress", [1, 0, 0], object_key="a.jpg", confidence=0.75),
        NewImage("p2", None, [0, 1, 0], object_key="b.jpg"),
        NewImage("p3", "hat", None, object_key="c.jpg"),
    ]
    first, second, _ = add_images(connection, new, models.space_id, models.classifier)
    rows = find_nearest(connection, "[1, 0, 0]", models.space_id, 10, None)
    assert [tuple(row) for row in rows] == [
        (first, "p1", "a.jpg", "dress", 0.75, 1.0),
        (second, "p2", "b.jpg", None, None, 0.0),
    ]


def test_takes_vectors_of_either_type_and_any_length_of_arrow(connection: Connection, models: Models) -> None:
    add_images(connection, [NewImage("p", vector=[1, 0, 0])], models.space_id, models.classifier)
    for literal in ("'[2,0,0]'::vector", "'[0.5,0,0]'::halfvec", "'[1,0,0]'"):
        statement = f"SELECT similarity FROM catalog.nearest_images({literal}, catalog.live_space())"
        assert connection.scalar(text(statement)) == 1


@pytest.mark.parametrize("category", ["common", "rare", "unique"])
def test_a_category_gives_the_true_neighbors(
    large_catalog: LargeCatalog, large_connection: Connection, category: str
) -> None:
    for query in unit_vectors(5, DIMENSIONS, clusters=5, seed=3):
        rows = find_nearest(large_connection, query, large_catalog.space_id, 4, category)
        assert [row.image_id for row in rows] == large_catalog.rank(query, category)[:4]
        exact = [large_catalog.vectors[row.image_id - large_catalog.image_ids[0]] @ query for row in rows]
        assert [row.similarity for row in rows] == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("by_product", [False, True])
def test_the_size_of_a_category_is_estimated(
    large_catalog: LargeCatalog, large_connection: Connection, by_product: bool
) -> None:
    estimate = text("SELECT catalog.estimate_codes(:category, :by_product)")
    common = {"category": "common", "by_product": by_product}
    assert large_connection.scalar(estimate, common) is None
    renew_vector_codes(large_connection, large_catalog.space_id)
    large_connection.execute(text("ANALYZE catalog.vector_codes"))
    column = "product_category" if by_product else "image_category"
    count = text(f"SELECT count(*) FROM catalog.vector_codes WHERE {column} = 'common'")
    assert large_connection.scalar(estimate, common) == pytest.approx(large_connection.scalar(count), rel=0.01)
    assert large_connection.scalar(estimate, common | {"category": "nothing"}) is None


def test_without_category_nearly_all_true_neighbors_are_found(
    large_catalog: LargeCatalog, large_connection: Connection
) -> None:
    found = 0
    for query in unit_vectors(20, DIMENSIONS, clusters=5, seed=4):
        rows = find_nearest(large_connection, query, large_catalog.space_id, 10, None)
        assert [row.similarity for row in rows] == sorted((row.similarity for row in rows), reverse=True)
        found += len({row.image_id for row in rows} & set(large_catalog.rank(query)[:10]))
    assert found / 200 > 0.95


def test_the_hnsw_index_is_used_without_a_category(large_catalog: LargeCatalog) -> None:
    def count_scans() -> int:
        with large_catalog.engine.connect() as connection:
            statement = text("SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname ~ '_hnsw$'")
            return int(connection.scalar(statement) or 0)

    before = count_scans()
    with large_catalog.engine.begin() as connection:
        find_nearest(connection, large_catalog.far_vector, large_catalog.space_id, 10, None)
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    assert count_scans() > before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("category", "k"), [("rare", 10), ("rare", 40), ("unique", 4), ("common", 200)])
def test_a_category_far_away_gives_k_rows(
    large_catalog: LargeCatalog, large_connection: Connection, category: str, k: int, route: str
) -> None:
    take_route(large_connection, route)
    rows = find_nearest(large_connection, large_catalog.far_vector, large_catalog.space_id, k, category)
    assert len({row.image_id for row in rows}) == k
    assert {row.category for row in rows} == {category}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("category", "there"), [("rare", 40), ("unique", 4), ("nothing is this", 0), (None, 4000)])
def test_fewer_rows_only_when_there_are_fewer(
    large_catalog: LargeCatalog, large_connection: Connection, category: str | None, there: int, route: str
) -> None:
    take_route(large_connection, route)
    rows = find_nearest(large_connection, large_catalog.far_vector, large_catalog.space_id, 5000, category)
    assert len({row.image_id for row in rows}) == len(rows) == there


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("category", [None, "common"])
def test_deleted_images_are_in_no_result_and_make_none_shorter(
    large_catalog: LargeCatalog, large_connection: Connection, category: str | None, route: str
) -> None:
    take_route(large_connection, route)
    nearest = large_catalog.rank(large_catalog.far_vector, category)
    delete_images(large_connection, nearest[:-5])
    rows = find_nearest(large_connection, large_catalog.far_vector, large_catalog.space_id, 5, category)
    assert sorted(row.image_id for row in rows) == sorted(nearest[-5:])


@pytest.mark.parametrize("route", ROUTES)
def test_a_label_moves_an_image_to_its_category(connection: Connection, models: Models, route: str) -> None:
    images = [NewImage("p", "dress", [1, 0, 0]), NewImage("p", "dress", [0, 1, 0]), NewImage("p", None, [0, 0, 1])]
    dress, hat, untagged = add_images(connection, images, models.space_id, models.classifier)
    take_route(connection, route)
    label_image(connection, hat, "shoes")
    label_image(connection, hat, "hat")
    label_image(connection, untagged, "hat")

    def find(category: str) -> set[object]:
        return {row.image_id for row in find_nearest(connection, "[1,1,1]", models.space_id, 10, category)}

    assert find("dress") == {dress}
    assert find("hat") == {hat, untagged}
    assert find("shoes") == set()


def test_only_the_champion_classifier_counts(connection: Connection, models: Models) -> None:
    (image,) = add_images(connection, [NewImage("p", "dress", [1, 0, 0])], models.space_id, models.classifier)
    newer = promote_model(connection, "classifier")
    assert find_nearest(connection, "[1,0,0]", models.space_id, 10, "dress") == []
    connection.execute(
        text("""
            INSERT INTO catalog.image_tags
            SELECT image_id, :newer, build_id, 'hat', 0.5, '[]', '{}', content_hash, now() FROM catalog.image_tags
        """),
        {"newer": newer},
    )
    (row,) = find_nearest(connection, "[1,0,0]", models.space_id, 10, "hat")
    assert (row.image_id, row.category, row.confidence) == (image, "hat", 0.5)


def test_results_come_from_the_live_space_only(connection: Connection, models: Models) -> None:
    add_images(connection, [NewImage("old", vector=[1, 0, 0])], models.space_id, models.classifier)
    newer = open_live_space(connection, 2)
    add_images(connection, [NewImage("new", vector=[1, 0])], newer, models.classifier)
    assert [row.product_id for row in find_nearest(connection, "[1,0]", newer, 10, None)] == ["new"]
    with refused(connection, "55000", "is retired"):
        find_nearest(connection, "[1,0,0]", models.space_id, 10, None)


@pytest.mark.parametrize(
    ("vector", "k", "sqlstate", "message"),
    [
        ("[1,0]", 10, "22000", "2 dimensions, but embedding space .* has 3"),
        ("[0,0,0]", 10, "22023", "null or zero"),
        (None, 10, "22023", "null or zero"),
        ("[1,0,0]", 0, "22023", "k is 0"),
        ("[1,0,0]", -1, "22023", "k is -1"),
        ("[1,0,0]", None, "22023", "k is null"),
    ],
)
def test_invalid_queries_are_refused(
    connection: Connection, vector: str | None, k: int | None, sqlstate: str, message: str
) -> None:
    space_id = open_live_space(connection, 3)
    with refused(connection, sqlstate, message):
        find_nearest(connection, vector, space_id, k, None)


def test_spaces_that_cannot_be_searched_are_refused(connection: Connection, models: Models) -> None:
    building = open_space(connection, promote_model(connection, "encoder", 3), 3)
    for space_id, sqlstate, message in (
        (building, "55000", "is building"),
        (999, "42704", "999 does not exist"),
        (None, "42704", "null does not exist"),
    ):
        with refused(connection, sqlstate, message, "live_space()"):
            find_nearest(connection, "[1,0,0]", space_id, 10, None)


@pytest.mark.parametrize("hostile", ["'; DROP TABLE catalog.images; --", "a\nb", "ünï😀", "%s %1$s", "$1", '"', "\\"])
def test_hostile_categories_are_only_text(connection: Connection, models: Models, hostile: str) -> None:
    (image,) = add_images(connection, [NewImage("p", hostile, [1, 0, 0])], models.space_id, models.classifier)
    add_images(connection, [NewImage("p", "dress", [1, 0, 0])], models.space_id, models.classifier)
    assert [row.image_id for row in find_nearest(connection, "[1,0,0]", models.space_id, 10, hostile)] == [image]
