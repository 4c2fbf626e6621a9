"""The defaults of every task, and the names that DAGs and deployment agree on."""

from datetime import timedelta
from typing import Any

TAGGING_POOL = "catalog_gpu"
"""One slot for each GPU, or for each model that the CPUs can run at a time."""

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "catalog",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
}
