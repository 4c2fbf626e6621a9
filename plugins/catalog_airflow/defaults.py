"""The defaults of every task, and the names that DAGs and deployment agree on."""

from datetime import timedelta
from typing import Any

TAGGING_POOL = "catalog_gpu"
"""One slot for each GPU, or for each model that the CPUs can run at a time."""

DECISION_DAG = "model_decision"
"""What the pages start when somebody promotes or rolls back."""

PAGES_PREFIX = "/catalog"
"""Where the API server has our pages."""

INGEST_PRIORITY, TRAINING_PRIORITY, RETAG_PRIORITY = 100, 10, 1
"""Who gets a free slot first: the photos of the night, then training, then bringing the catalog over."""

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "catalog",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
    # A task's own number counts, not the sum over those that follow it.
    "weight_rule": "absolute",
}
