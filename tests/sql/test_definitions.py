import pytest
from sqlalchemy import Connection, Engine, text

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, store_text
from jobs.database.migrations import SQL_FOLDER


def read_names(connection: Connection, statement: str) -> set[str]:
    return set(connection.execute(text(statement)).scalars())


def test_every_function_and_view_is_described(connection: Connection) -> None:
    undescribed = """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'catalog'::regnamespace AND prorettype <> 'trigger'::regtype
          AND obj_description(oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'catalog'::regnamespace AND relkind = 'v' AND obj_description(oid, 'pg_class') IS NULL
    """
    assert read_names(connection, undescribed) == set()


def test_every_object_is_named_after_its_file(connection: Connection) -> None:
    functions = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'catalog'::regnamespace AND prorettype <> 'trigger'::regtype
    """
    views = "SELECT relname FROM pg_class WHERE relnamespace = 'catalog'::regnamespace AND relkind = 'v'"
    assert read_names(connection, functions) == {file.stem for file in SQL_FOLDER.glob("functions/*.sql")}
    assert read_names(connection, views) == {file.stem for file in SQL_FOLDER.glob("views/*.sql")}


def test_functions_only_read(connection: Connection) -> None:
    volatile = """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'catalog'::regnamespace AND prorettype <> 'trigger'::regtype AND provolatile <> 's'
    """
    assert read_names(connection, volatile) == set()


@pytest.mark.parametrize(
    "question",
    [
        "nearest_images('[1,0,0]', 1, category => 'dress')",
        "similar_images(1, category => 'dress')",
        "similar_products('p1', category => 'dress')",
        "search_products('red', k => 1)",
    ],
)
def test_an_ordinary_reader_with_another_search_path_is_answered(engine: Engine, question: str) -> None:
    """In a session that has not used the vector library before, in a space that is younger than the grants."""
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE reader"))
        connection.execute(text("GRANT USAGE ON SCHEMA catalog TO reader"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA catalog TO reader"))
        classifier, space_id = promote_model(connection, "classifier"), open_live_space(connection, 3)
        add_images(connection, [NewImage(f"p{i}", "dress", [1, 0, 0]) for i in (1, 2)], space_id, classifier)
        store_text(connection, "red", "[1, 0, 0]", space_id)
    engine.dispose()
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL ROLE reader"))
            connection.execute(text("SET LOCAL search_path = pg_catalog"))
            rows = connection.scalar(text(f"SELECT count(*) FROM catalog.{question}"))
        assert rows is not None
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP OWNED BY reader"))
            connection.execute(text("DROP ROLE reader"))
