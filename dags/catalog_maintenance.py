"""
### Nightly maintenance of search

Checks that searches are right, and repairs their indexes. Searches and other runs continue meanwhile.

- **check_recall** compares searches with exact ones, for 200 sampled queries without a category and in each large
  category. It stores recall with a confidence interval, which the overview of the catalog shows. It fails if the
  interval is below `CATALOG_RECALL_BOUND`.
- **care** repairs what crosses a bound, even if the check failed: it rebuilds an index next to the old one if the index
  takes too much space or recall is too low, and replaces the index of more than a million vectors by a binary one. It
  vacuums tables with many dead rows, and analyzes tables whose statistics are stale. After a rebuild, it checks recall
  again. It fails if recall is still too low. An index is rebuilt at most once a week.

If care repairs what the check found, the run succeeds.

**On the command line**: `catalog check-recall`, `catalog care`.
"""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule
from catalog_airflow.defaults import DEFAULT_ARGS
from catalog_airflow.events import describe_failed_recall_check, describe_failed_run
from catalog_airflow.notifications import notify
from catalog_airflow.operators import JobOperator
from catalog_airflow.placement import place
from catalog_airflow.schedules import read_schedule

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}

with DAG(
    dag_id="catalog_maintenance",
    description="Check the recall of searches, and care for indexes",
    doc_md=__doc__,
    # Usually after the nightly ingestion. Both can run at the same time.
    schedule=read_schedule("CATALOG_MAINTENANCE_SCHEDULE", "0 5 * * *"),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
    tags=["catalog"],
):
    check_recall = JobOperator(
        task_id="check_recall",
        command="check-recall",
        options=RUN,
        on_failure_callback=notify(describe_failed_recall_check),
    )
    care = JobOperator(
        task_id="care",
        command="care",
        options=RUN,
        trigger_rule=TriggerRule.ALL_DONE,
        # One core rebuilds the index of a large catalog.
        execution_timeout=timedelta(hours=6),
    )
    check_recall >> care
