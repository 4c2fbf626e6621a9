"""The queries by which KEDA scales workers, in the database of a real Airflow."""

import pytest
import yaml
from sqlalchemy import Connection, create_engine, text

from jobs.database.engine import driver_url
from jobs.settings import PROJECT_ROOT
from tests.end_to_end.live_stack import LiveStack

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

WORKERS = yaml.safe_load((PROJECT_ROOT / "deploy" / "helm-workers.yaml").read_text())["workers"]["celery"]["sets"]
QUERIES = {workers["queue"]: workers["keda"]["query"] for workers in WORKERS}


PLANT = text("""
    INSERT INTO task_instance
    SELECT (jsonb_populate_record(known, jsonb_build_object(
        'id', gen_random_uuid(), 'map_index', known.map_index + 1,
        'state', CAST(:state AS text), 'queue', CAST(:queue AS text), 'executor', CAST(:executor AS text)
    ))).*
    FROM task_instance AS known ORDER BY map_index DESC LIMIT 1
""")


def plant_task(connection: Connection, state: str | None, queue: str, executor: str | None = None) -> None:
    """Copy a task instance into another map index."""
    connection.execute(PLANT, {"state": state, "queue": queue, "executor": executor})


def count_workers(connection: Connection) -> dict[str, int]:
    return {queue: connection.execute(text(query)).scalar_one() for queue, query in QUERIES.items()}


def test_workers_follow_the_tasks_of_their_queue(stack: LiveStack) -> None:
    stack.run_dag("tell_news", is_news=False)
    url = stack.environment["CATALOG_DATABASE_URL"]
    engine = create_engine(driver_url(f"{url.rpartition('/')[0]}/airflow"))
    # One transaction without a commit, so the scheduler never sees these tasks.
    with engine.connect() as connection:
        assert count_workers(connection) == {"default": 0, "gpu": 0}
        for state in ("success", "failed", "scheduled", "up_for_retry", "deferred", None):
            plant_task(connection, state, "gpu")
        plant_task(connection, "running", "gpu", "KubernetesExecutor")
        plant_task(connection, "running", "another")
        assert count_workers(connection) == {"default": 0, "gpu": 0}
        for state in ("queued", "running", "restarting"):
            plant_task(connection, state, "gpu")
        plant_task(connection, "queued", "default", "CeleryExecutor")
        assert count_workers(connection) == {"default": 1, "gpu": 3}
    engine.dispose()
