"""What the runbook says of backups and of readers, done."""

import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model
from fixtures.command_line import run_job
from fixtures.postgres import execute, query
from jobs.database.engine import create_database_engine
from jobs.database.migrations import migrate
from jobs.settings import PROJECT_ROOT
from tests.deployment.postgres_programs import dump_database, restore_database
from tests.test_cli import make_environment

RUNBOOK = (PROJECT_ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
LOOKALIKES = "SELECT array_agg(product_id) FROM catalog.similar_products('p3', 5)"


@pytest.fixture
def catalog(deployment: str) -> str:
    """The URL of a catalog with vectors and an index, as superuser."""
    owner = make_url(deployment).set(username="tagger", database="catalog")
    migrate(owner.render_as_string(hide_password=False))
    engine = create_database_engine(owner.render_as_string(hide_password=False))
    with engine.begin() as connection:
        classifier, space = promote_model(connection, "classifier"), open_live_space(connection, 3)
        images = [NewImage(f"p{number}", vector=(1, number / 10, 0)) for number in range(9)]
        add_images(connection, images, space, classifier)
    engine.dispose()
    return make_url(deployment).set(database="catalog").render_as_string(hide_password=False)


def test_a_restored_catalog_gives_the_same_answers(deployment: str, catalog: str, tmp_path: Path) -> None:
    before = query(catalog, LOOKALIKES)
    with (tmp_path / "catalog.dump").open("w") as file:
        dump_database(catalog, file)
    statements = re.findall(r"--command='((?:DROP|CREATE|REVOKE)[^']+)'", RUNBOOK)
    assert len(statements) == 3
    execute(deployment, *statements)
    with (tmp_path / "catalog.dump").open() as file:
        restore_database(catalog, file)
    assert query(catalog, LOOKALIKES) == before

    owner = make_url(catalog).set(username="tagger").render_as_string(hide_password=False)
    assert migrate(owner).applied == ()


def test_a_reader_gets_every_answer_and_changes_nothing(catalog: str) -> None:
    section = RUNBOOK.partition("## Give others access")[2]
    execute(catalog, *re.findall(r"^    (\w.+);$", section, re.MULTILINE))
    reader = make_url(catalog).set(username="reader").render_as_string(hide_password=False)
    assert query(reader, LOOKALIKES) == query(catalog, LOOKALIKES)
    for view in sorted((PROJECT_ROOT / "sql" / "views").glob("*.sql")):
        query(reader, f"SELECT count(*) FROM catalog.{view.stem}")
    assert query(reader, "SELECT has_table_privilege('catalog.labels', 'INSERT')") is False

    printed = run_job(
        "changes",
        "--consumer=dbt",
        "--since=0-0",
        environment=make_environment(CATALOG_DATABASE_URL=reader),
    )
    assert printed.exit_code == 0, printed.messages
    assert '"kind": "classifier_switch"' in printed.output
