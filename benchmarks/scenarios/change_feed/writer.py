"""Change a catalog at random on several connections, until killed: ``python -m ... DATABASE_URL SEED``.

Transactions overlap, last for different times, and some roll back. Each commit is printed as its id and its time.
"""

import random
import sys
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, create_engine, exc, text

from jobs.database.engine import driver_url

CONNECTIONS = 4
LONGEST_SECONDS = 0.3
ROLLBACK_SHARE = 0.1

TAG = """
    INSERT INTO catalog.product_tags (product_id, classifier_version_id, category, confidence, images, images_disagree,
                                      fused_from)
    SELECT product_id, (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'),
           'category ' || floor(random() * 5), round(CAST(random() AS numeric), 2), 1, random() < 0.1, ''
    FROM (SELECT product_id FROM catalog.products ORDER BY random() LIMIT 20) p ORDER BY product_id
    ON CONFLICT (product_id, classifier_version_id) DO UPDATE
    SET category = excluded.category, confidence = excluded.confidence, images_disagree = excluded.images_disagree
"""
UNTAG = """
    DELETE FROM catalog.product_tags
    WHERE product_id = (SELECT product_id FROM catalog.products ORDER BY random() LIMIT 1)
"""
LABEL = """
    INSERT INTO catalog.labels (image_id, category, labeled_by)
    SELECT image_id, CASE WHEN random() < 0.2 THEN 'not clothing' ELSE 'label ' || floor(random() * 5) END, 'writer'
    FROM catalog.images ORDER BY random() LIMIT 1
"""
UNDO = "DELETE FROM catalog.labels WHERE label_id IN (SELECT label_id FROM catalog.labels ORDER BY random() LIMIT 1)"
DELETE = """
    UPDATE catalog.images SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE image_id IN (
        SELECT image_id FROM catalog.images ORDER BY random() LIMIT 3
    )
"""
MOVE = """
    UPDATE catalog.images SET product_id = (SELECT product_id FROM catalog.products ORDER BY random() LIMIT 1)
    WHERE image_id = (SELECT image_id FROM catalog.images ORDER BY random() LIMIT 1)
"""
ADD = """
    WITH added AS (
        INSERT INTO catalog.products (product_id) VALUES ('new ' || floor(random() * 50))
        ON CONFLICT (product_id) DO UPDATE SET updated_at = now() RETURNING product_id
    )
    INSERT INTO catalog.images (bucket, object_key, product_id, etag, size_bytes)
    SELECT 'shop', gen_random_uuid(), product_id, 'etag', 1 FROM added
"""
SWITCH = """
    INSERT INTO catalog.switches (kind, model_version_id)
    SELECT 'classifier', model_version_id FROM catalog.model_versions WHERE kind = 'classifier'
    ORDER BY random() LIMIT 1
"""
WEIGHTS = {TAG: 30, UNTAG: 5, LABEL: 20, UNDO: 10, DELETE: 15, MOVE: 10, ADD: 5, SWITCH: 1}


def write_for_ever(database_url: str, choose: random.Random, report: Callable[[str], object]) -> None:
    """Run random transactions on one connection."""
    engine = create_engine(driver_url(database_url))
    statements, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        try:
            with engine.connect() as connection:
                while True:
                    run_transaction(
                        connection, choose.choices(statements, weights, k=choose.randint(1, 3)), choose, report
                    )
        except exc.OperationalError:
            # Two transactions waited for each other, and Postgres has ended this one.
            pass


def run_transaction(
    connection: Connection, statements: list[str], choose: random.Random, report: Callable[[str], object]
) -> None:
    """Run statements in one transaction, wait, and commit or roll back."""
    for statement in statements:
        connection.execute(text(statement))
    transaction_id = connection.scalar(text("SELECT CAST(pg_current_xact_id() AS text)"))
    time.sleep(choose.uniform(0, LONGEST_SECONDS))
    if choose.random() < ROLLBACK_SHARE:
        connection.rollback()
        return
    connection.commit()
    report(f"{transaction_id} {time.time()}")


def main() -> None:
    """Start all connections."""
    database_url, seed = sys.argv[1:]

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    for number in range(CONNECTIONS):
        arguments = (database_url, random.Random(f"{seed}-{number}"), report)
        threading.Thread(target=write_for_ever, args=arguments, daemon=True).start()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
