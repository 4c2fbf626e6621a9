import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, delete_images, label_image, open_live_space, promote_model
from jobs.database.engine import create_database_engine
from jobs.database.examples import NOT_CLOTHING
from jobs.database.reviews import Answer, read_past_answers
from jobs.database.vector_codes import renew_vector_codes
from jobs.review.answers import ReviewRefusedError, list_answers, record_answers, undo_answer, undo_batch
from tests.database.conftest import SmallCatalog

Tag = tuple[str, str] | None


def read_tags(connection: Connection, catalog: SmallCatalog, name: str) -> tuple[Tag, Tag]:
    """Return the current category and source of an image and of its product."""
    image_id = catalog.image_ids[name]
    image = connection.execute(
        text("SELECT category, source FROM catalog.current_image_tags WHERE image_id = :id"), {"id": image_id}
    ).one_or_none()
    product = connection.execute(
        text("""
            SELECT category, source FROM catalog.current_product_tags
            WHERE product_id = (SELECT product_id FROM catalog.images WHERE image_id = :id)
        """),
        {"id": image_id},
    ).one_or_none()
    return (tuple(image) if image else None, tuple(product) if product else None)


def read_codes(connection: Connection, catalog: SmallCatalog) -> dict[str, tuple[str, str]]:
    rows = connection.execute(text("SELECT image_id, image_category, product_category FROM catalog.vector_codes"))
    return {catalog.name(row[0]): (row[1], row[2]) for row in rows}


def answer(connection: Connection, catalog: SmallCatalog, name: str, category: str, person: str = "ann") -> int:
    [review_id] = record_answers(connection, [Answer(catalog.image_ids[name], "low_confidence", category)], person)
    return review_id


def test_an_answer_applies_at_once_and_can_be_undone_completely(connection: Connection, catalog: SmallCatalog) -> None:
    renew_vector_codes(connection, catalog.space_id)
    tags, codes = read_tags(connection, catalog, "blue"), read_codes(connection, catalog)
    assert tags == (("hat", "model"), ("dress", "model"))
    review_id = answer(connection, catalog, "blue", "shoes")
    assert read_tags(connection, catalog, "blue") == (("shoes", "human"), ("shoes", "human"))
    assert read_codes(connection, catalog) == codes | {"blue": ("shoes", "shoes"), "red": ("dress", "shoes")}
    row = connection.execute(
        text("""
            SELECT l.category, l.labeled_by, r.model_category, r.reason, r.answer, r.reviewed_by
            FROM catalog.reviews r JOIN catalog.labels l USING (label_id) WHERE review_id = :id
        """),
        {"id": review_id},
    ).one()
    assert tuple(row) == ("shoes", "ann", "hat", "low_confidence", "shoes", "ann")
    undo_answer(connection, review_id, "bob")
    assert read_tags(connection, catalog, "blue") == tags
    assert read_codes(connection, catalog) == codes
    [past] = read_past_answers(connection, "ann", 10)
    assert (past.review_id, past.answer, past.is_undone) == (review_id, "shoes", True)
    assert read_past_answers(connection, "bob", 10) == ()


def test_after_an_undo_the_previous_label_applies_again(connection: Connection, catalog: SmallCatalog) -> None:
    renew_vector_codes(connection, catalog.space_id)
    codes = read_codes(connection, catalog)
    review_id = answer(connection, catalog, "labeled", "hat")
    assert read_tags(connection, catalog, "labeled")[0] == ("hat", "human")
    undo_answer(connection, review_id, "ann")
    assert read_tags(connection, catalog, "labeled")[0] == ("dress", "human")
    assert read_codes(connection, catalog) == codes


def test_what_cannot_be_undone_is_explained(connection: Connection, catalog: SmallCatalog) -> None:
    review_id = answer(connection, catalog, "blue", "shoes")
    # From elsewhere, such as an import.
    label_image(connection, catalog.image_ids["blue"], "dress")
    with pytest.raises(ReviewRefusedError, match="tester has answered since"):
        undo_answer(connection, review_id, "ann")
    other = answer(connection, catalog, "hat", "shoes")
    undo_answer(connection, other, "bob")
    with pytest.raises(ReviewRefusedError, match="already undone by bob"):
        undo_answer(connection, other, "ann")
    with pytest.raises(ReviewRefusedError, match="no answer 999"):
        undo_answer(connection, 999, "ann")
    assert read_tags(connection, catalog, "blue")[0] == ("dress", "human")


def test_the_second_of_two_people_sees_the_answer_of_the_first(connection: Connection, catalog: SmallCatalog) -> None:
    first = answer(connection, catalog, "blue", "shoes")
    with pytest.raises(ReviewRefusedError, match=r"ann has already answered for image \d+: shoes"):
        answer(connection, catalog, "blue", "dress", "bob")
    assert read_tags(connection, catalog, "blue")[0] == ("shoes", "human")
    undo_answer(connection, first, "ann")
    answer(connection, catalog, "blue", "dress", "bob")
    assert read_tags(connection, catalog, "blue")[0] == ("dress", "human")


def test_of_two_concurrent_answers_one_is_first(database_url: str) -> None:
    engine = create_database_engine(database_url)
    with engine.begin() as connection:
        classifier = promote_model(connection, "classifier")
        space_id = open_live_space(connection, 3)
        [image_id] = add_images(connection, [NewImage("p", "hat", (1, 0, 0))], space_id, classifier)
        add_images(connection, [NewImage("q", "dress", (0, 1, 0))], space_id, classifier)

    def give(person: str) -> bool:
        try:
            with engine.begin() as connection:
                record_answers(connection, [Answer(image_id, "audit", "dress")], person)
                time.sleep(0.2)
        except ReviewRefusedError:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(give, ["ann", "bob"])) == [False, True]
    engine.dispose()


def test_an_invalid_answer_is_refused_completely(connection: Connection, catalog: SmallCatalog) -> None:
    images = catalog.image_ids
    delete_images(connection, [images["sandal"]])
    for image_id, category, words in (
        (images["blue"], "<script>", "no category '<script>'"),
        (images["untagged"], "hat", "has no tag of the live classifier"),
        (images["sandal"], "hat", "is gone"),
        (10**12, "hat", "is gone"),
    ):
        savepoint = connection.begin_nested()
        with pytest.raises(ReviewRefusedError, match=words):
            record_answers(
                connection, [Answer(images["hat"], "audit", "hat"), Answer(image_id, "audit", category)], "ann"
            )
        savepoint.rollback()
    assert connection.execute(text("SELECT count(*) FROM catalog.reviews")).scalar_one() == 0


def test_many_are_accepted_together(connection: Connection, catalog: SmallCatalog) -> None:
    names = ["blue", "boot", "sandal"]
    tags = [read_tags(connection, catalog, name)[0] for name in names]
    answers = [
        Answer(catalog.image_ids[name], "low_confidence", tag[0]) for name, tag in zip(names, tags, strict=True) if tag
    ]
    assert len(set(record_answers(connection, answers, "ann"))) == 3
    assert [read_tags(connection, catalog, name)[0] for name in names] == [(tag[0], "human") for tag in tags if tag]
    assert [past.answer for past in read_past_answers(connection, "ann", 2)] == ["shoes", "shoes"]


def test_a_image_of_no_product_leaves_the_product_to_its_other_images(
    connection: Connection, catalog: SmallCatalog
) -> None:
    renew_vector_codes(connection, catalog.space_id)
    answer(connection, catalog, "blue", NOT_CLOTHING)
    assert read_tags(connection, catalog, "blue") == ((NOT_CLOTHING, "human"), ("dress", "model"))
    assert read_codes(connection, catalog)["blue"] == (NOT_CLOTHING, "dress")
    review_id = answer(connection, catalog, "red", NOT_CLOTHING)
    assert read_tags(connection, catalog, "red") == ((NOT_CLOTHING, "human"), (NOT_CLOTHING, "human"))
    undo_answer(connection, review_id, "ann")
    answer(connection, catalog, "red", "hat")
    answer(connection, catalog, "blue", NOT_CLOTHING)
    assert read_tags(connection, catalog, "blue")[1] == ("hat", "human")
    assert NOT_CLOTHING not in list_answers(connection)
    # What is corrected counts no more.
    answer(connection, catalog, "red", NOT_CLOTHING)
    answer(connection, catalog, "blue", "shoes")
    assert read_tags(connection, catalog, "red")[1] == ("shoes", "human")


def test_categories_are_those_of_the_classifier_and_of_labels(connection: Connection, catalog: SmallCatalog) -> None:
    label_image(connection, catalog.image_ids["hat"], "kimono")
    assert list_answers(connection) == ("dress", "hat", "kimono", "shoes")
    answer(connection, catalog, "boot", "kimono")


def test_answers_stored_together_are_undone_together(connection: Connection, catalog: SmallCatalog) -> None:
    images = catalog.image_ids
    answers = [Answer(images[name], "correction", "shoes") for name in ("blue", "hat")]
    review_id = record_answers(connection, answers, "ann")[-1]
    with pytest.raises(ReviewRefusedError, match="You gave no answer"):
        undo_batch(connection, review_id, "bob")
    assert sorted(undo_batch(connection, review_id, "ann")) == sorted([images["blue"], images["hat"]])
    assert read_tags(connection, catalog, "blue")[0] == read_tags(connection, catalog, "hat")[0] == ("hat", "model")


def test_an_overruled_answer_blocks_the_undo_of_all(connection: Connection, catalog: SmallCatalog) -> None:
    answers = [Answer(catalog.image_ids[name], "correction", "shoes") for name in ("blue", "hat")]
    review_id = record_answers(connection, answers, "ann")[-1]
    record_answers(connection, [Answer(catalog.image_ids["blue"], "correction", "dress")], "bob")
    savepoint = connection.begin_nested()
    with pytest.raises(ReviewRefusedError, match="bob has answered since"):
        undo_batch(connection, review_id, "ann")
    savepoint.rollback()
    assert read_tags(connection, catalog, "hat")[0] == ("shoes", "human")
    assert read_tags(connection, catalog, "blue")[0] == ("dress", "human")
