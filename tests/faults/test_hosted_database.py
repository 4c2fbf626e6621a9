"""Use a database as hosting providers set it up: no superuser, pgvector in a separate schema, another search path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from fixtures.job_processes import start_job
from fixtures.postgres import execute, query
from fixtures.s3_server import S3Server
from fixtures.shop import TinyModels, open_shop, promote_tiny_models
from jobs.connections import connect
from jobs.database.engine import create_database_engine
from jobs.database.migrations import migrate
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.settings import make_settings

OWNER = "shop owner"
READER = "shop reader"
PASSWORD = "p@ss/w:rd%20+?#"


@pytest.fixture
def hosted_database_url(empty_database_url: str) -> Iterator[str]:
    """Set up a database whose owner has a name and a password that must be quoted in a URL."""
    name = make_url(empty_database_url).database
    execute(
        empty_database_url,
        f"""CREATE ROLE "{OWNER}" LOGIN PASSWORD '{PASSWORD.replace(":", chr(92) + ":")}'""",
        f'CREATE ROLE "{READER}"',
        'CREATE SCHEMA "Extensions"',
        'CREATE EXTENSION vector SCHEMA "Extensions"',
        f'ALTER DATABASE {name} OWNER TO "{OWNER}"',
        f'ALTER ROLE "{OWNER}" SET search_path = elsewhere',
        f'GRANT "{READER}" TO "{OWNER}"',
    )
    yield make_url(empty_database_url).set(username=OWNER, password=PASSWORD).render_as_string(hide_password=False)
    execute(
        empty_database_url,
        f'REASSIGN OWNED BY "{OWNER}" TO postgres',
        *(f'DROP OWNED BY "{role}"' for role in (OWNER, READER)),
        *(f'DROP ROLE "{role}"' for role in (READER, OWNER)),
    )


def test_the_error_says_what_to_grant_for_pgvector(hosted_database_url: str) -> None:
    with pytest.raises(PermanentError, match=f'GRANT USAGE ON SCHEMA "Extensions" TO "{OWNER}"'):
        migrate(hosted_database_url)


def test_the_catalog_works_with_pgvector_in_another_schema(
    hosted_database_url: str, empty_database_url: str, s3_server: S3Server, tiny_models: TinyModels, tmp_path: Path
) -> None:
    for role in (OWNER, READER):
        execute(empty_database_url, f'GRANT USAGE ON SCHEMA "Extensions" TO "{role}"')
    assert migrate(hosted_database_url).applied
    with open_shop(s3_server, hosted_database_url, tmp_path) as shop:
        promote_tiny_models(shop, tiny_models).put_images(6)
        with connect(make_settings(shop.environment)) as connections:
            assert ingest(connections, IngestOptions()).tagged == 6
        job = start_job("migrate", environment=shop.environment, messages=tmp_path / "messages")
        job.join(60)
        assert job.exitcode == 0, (tmp_path / "messages").read_text()
        execute(
            hosted_database_url,
            f'GRANT USAGE ON SCHEMA catalog TO "{READER}"',
            f'GRANT SELECT ON ALL TABLES IN SCHEMA catalog TO "{READER}"',
        )
        engine = create_database_engine(hosted_database_url)
        with engine.begin() as connection:
            connection.execute(text(f'SET LOCAL ROLE "{READER}"'))
            connection.execute(text("SET LOCAL search_path = pg_catalog"))
            product = connection.scalar(text("SELECT min(product_id) FROM catalog.products"))
            found = connection.execute(text("SELECT * FROM catalog.similar_products(:product)"), {"product": product})
            assert len(found.all()) == 2
        engine.dispose()
    tables = (
        "SELECT string_agg(DISTINCT table_schema, ' ') FROM information_schema.tables WHERE table_name = 'migrations'"
    )
    assert query(hosted_database_url, tables) == "catalog"


def test_a_database_needs_no_schema_public(hosted_database_url: str, empty_database_url: str) -> None:
    execute(empty_database_url, f'GRANT USAGE ON SCHEMA "Extensions" TO "{OWNER}"', "DROP SCHEMA public")
    assert migrate(hosted_database_url).applied
    assert query(hosted_database_url, "SELECT count(*) FROM catalog.current_product_tags") == 0
