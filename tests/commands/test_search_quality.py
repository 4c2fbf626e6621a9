"""The commands that keep searches right tell a scheduler whether they are."""

import json

from sqlalchemy import text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, unit_vectors
from fixtures.command_line import run_job
from fixtures.shop import Shop
from tests.search_quality.test_recall_check import BROKEN_SEARCH


def test_low_recall_is_one_line_and_an_exit_code(shop: Shop) -> None:
    empty = run_job("check-recall", environment=shop.environment)
    assert (empty.exit_code, json.loads(empty.output)["checks"]) == (0, [])
    vectors = unit_vectors(40, 4, clusters=4, seed=1)
    with shop.connections.engine.begin() as connection:
        new = [NewImage(f"p{number}", None, vector.tolist()) for number, vector in enumerate(vectors)]
        add_images(connection, new, open_live_space(connection, 4), None)
    fine = run_job("check-recall", environment=shop.environment)
    assert (fine.exit_code, json.loads(fine.output)["checks"][0]["recall"]) == (0, 1)
    with shop.connections.engine.begin() as connection:
        connection.execute(text(BROKEN_SEARCH))
    low = run_job("check-recall", environment=shop.environment)
    assert low.exit_code == 78
    assert low.messages[-1].startswith("error: searches without a category find 0.")
    assert "less than CATALOG_RECALL_BOUND=0.95: " in low.messages[-1]
    lenient = run_job("check-recall", environment=shop.environment | {"CATALOG_RECALL_BOUND": "0.5"})
    assert lenient.exit_code == 0
    # Too few vectors to care for.
    care = run_job("care", environment=shop.environment)
    assert (care.exit_code, json.loads(care.output)["rebuilt"]) == (0, [])
