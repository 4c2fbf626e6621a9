import shlex
import subprocess
from typing import Any

import pytest
from sqlalchemy import Connection, Row, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, store_text, tag_products
from tests.sql.conftest import Models
from tests.sql.questions import refused

HOSTILE = [
    "it's red",
    "'; DROP TABLE catalog.text_queries; --",
    '"$(touch harm)" `touch harm` \\ ! $HOME',
    "two\nlines",
    "ünï😀",
    "100 % wool %s",
    "-k 5",
    "--help",
]


def search(connection: Connection, query_text: str | None, k: int = 10, category: str | None = None) -> list[Row[Any]]:
    statement = text("SELECT * FROM catalog.search_products(:text, :k, :category)")
    return list(connection.execute(statement, {"text": query_text, "k": k, "category": category}))


def test_products_that_fit_a_text(connection: Connection, models: Models) -> None:
    new = [NewImage("red", vector=[1, 0, 0]), NewImage("blue", vector=[0, 1, 0]), NewImage("hat", vector=[0, 0, 1])]
    add_images(connection, new, models.space_id, models.classifier)
    tag_products(connection, models.classifier, {"red": "dress", "blue": "dress", "hat": "hat"})
    store_text(connection, "red", "[0.9, 0.1, 0]", models.space_id)
    assert [row.product_id for row in search(connection, "red")] == ["red", "blue", "hat"]
    assert [row.product_id for row in search(connection, "red", 1)] == ["red"]
    (row,) = search(connection, "red", 10, "hat")
    assert (row.product_id, row.display_name, row.category) == ("hat", "Name of hat", "hat")


def test_a_text_of_another_encoder_is_unknown(connection: Connection, models: Models) -> None:
    store_text(connection, "red", "[1, 0, 0]", models.space_id)
    newer = open_live_space(connection, 3)
    with refused(connection, "P0002", "'red' was not embedded", "catalog embed-text 'red'"):
        search(connection, "red")
    store_text(connection, "red", "[1, 0, 0]", newer)
    assert search(connection, "red") == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_hint_can_be_pasted_into_a_shell(connection: Connection, models: Models, hostile: str) -> None:
    with refused(connection, "P0002", "was not embedded yet") as hints:
        search(connection, hostile)
    command = hints[0].removeprefix("Run: catalog embed-text ")
    assert shlex.split(command) == (["--", hostile] if hostile.startswith("-") else [hostile])
    echo = subprocess.run(["sh", "-c", f"printf %s {command.removeprefix('-- ')}"], capture_output=True, check=True)
    assert echo.stdout.decode() == hostile


@pytest.mark.parametrize("hostile", [*HOSTILE, ""])
def test_hostile_texts_are_only_text(connection: Connection, models: Models, hostile: str) -> None:
    add_images(connection, [NewImage("p", vector=[1, 0, 0])], models.space_id, models.classifier)
    store_text(connection, hostile, "[1, 0, 0]", models.space_id)
    assert [row.product_id for row in search(connection, hostile)] == ["p"]


def test_invalid_queries_are_refused(connection: Connection, models: Models) -> None:
    store_text(connection, "red", "[1, 0, 0]", models.space_id)
    with refused(connection, "22023", "k is 0"):
        search(connection, "red", 0)
    with refused(connection, "P0002", "NULL was not embedded", "Pass a text"):
        search(connection, None)


def test_without_a_live_space_the_error_names_the_command(connection: Connection) -> None:
    with refused(connection, "55000", "no embedding space is live yet", "catalog ingest"):
        search(connection, "red")
