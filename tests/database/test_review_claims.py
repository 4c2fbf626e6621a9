"""Claims keep two people from the same image, even at the same moment."""

import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model
from jobs.database.engine import create_database_engine
from jobs.database.review_claims import claim_first, read_claims, release_claims
from tests.database.conftest import SmallCatalog


def test_the_first_free_image_is_claimed(connection: Connection, catalog: SmallCatalog) -> None:
    red, blue, hat = (catalog.image_ids[name] for name in ("red", "blue", "hat"))
    assert claim_first(connection, [red, blue], "ann") == red
    assert claim_first(connection, [red, blue], "bob") == blue
    assert claim_first(connection, [red, blue], "cas") is None
    assert claim_first(connection, [blue, red, hat], "ann") == red
    assert read_claims(connection) == {red: "ann", blue: "bob"}
    release_claims(connection, "bob", [red])
    release_claims(connection, "ann", [red])
    assert claim_first(connection, [red], "cas") == red
    release_claims(connection, "bob")
    assert read_claims(connection) == {red: "cas"}
    assert claim_first(connection, [], "ann") is None


def test_an_expired_claim_is_free_and_is_deleted(connection: Connection, catalog: SmallCatalog) -> None:
    red, blue = catalog.image_ids["red"], catalog.image_ids["blue"]
    claim_first(connection, [red], "ann")
    claim_first(connection, [blue], "ann")
    connection.execute(text("UPDATE catalog.review_claims SET expires_at = now() - interval '1 second'"))
    assert read_claims(connection) == {}
    assert claim_first(connection, [red], "bob") == red
    assert connection.execute(text("SELECT count(*) FROM catalog.review_claims")).scalar_one() == 1


def test_of_two_people_at_the_same_moment_each_gets_another_image(database_url: str) -> None:
    engine = create_database_engine(database_url)
    with engine.begin() as connection:
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
        new = [NewImage("p", "hat", (1, 0, 0), object_key=f"{number}.jpg") for number in range(2)]
        image_ids = add_images(connection, new, space_id, classifier)

    def claim(person: str) -> int | None:
        with engine.begin() as connection:
            claimed = claim_first(connection, image_ids, person)
            time.sleep(0.2)
        return claimed

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(claim, ["ann", "bob"])) == sorted(image_ids)  # type: ignore[type-var]
    engine.dispose()
