"""Define defaults for all tasks, and names that the DAGs share with the deployment."""

from datetime import timedelta
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parents[2]

TAGGING_POOL = "catalog_gpu"
"""One slot per GPU, or per model that the CPUs can run in parallel."""

DECISION_DAG = "model_decision"
"""The DAG that the pages start for a promotion or a rollback."""

PAGES_PREFIX = "/catalog"
"""The path of the pages on the API server."""

ERROR_KEY = "error"
"""The XCom with the one-line error of a failed job, for notifications."""

INGEST_PRIORITY, TRAINING_PRIORITY, RETAG_PRIORITY = 100, 10, 1
"""Free slots go to nightly ingestion first, then to training, then to retagging."""

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "catalog",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
    # Airflow's default adds up the priorities of all downstream tasks.
    "weight_rule": "absolute",
}
