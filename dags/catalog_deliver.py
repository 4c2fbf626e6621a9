"""
### Deliver changes of products

Posts each change of what the catalog says about a product to the webhooks in `CATALOG_WEBHOOKS`, signed, in order and
at least once. Without webhooks, a run ends at once; pause the DAG.

- **deliver** follows the changes for 59 minutes and posts them within seconds. A webhook that fails is tried again and
  does not delay the others. The task fails at its end if a webhook then still fails; the next run continues. What a
  webhook does not accept for an hour becomes a dead letter.

A run each hour keeps Airflow's history small. Between two runs, changes wait for up to a minute.

**On the command line**: `catalog deliver --minutes 59`. `catalog dead-letters` lists dead letters and sends them again.
`catalog changes` prints the same changes for a program that reads them itself.
"""

from datetime import timedelta

from airflow.sdk import DAG
from catalog_airflow.defaults import DEFAULT_ARGS
from catalog_airflow.events import describe_failed_run
from catalog_airflow.notifications import notify
from catalog_airflow.operators import JobOperator
from catalog_airflow.placement import place

with DAG(
    dag_id="catalog_deliver",
    description="Post changes of products to webhooks",
    doc_md=__doc__,
    schedule="0 * * * *",
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
    tags=["catalog"],
):
    JobOperator(
        task_id="deliver",
        command="deliver",
        options={"minutes": 59},
        # Longer than the task takes, because its last request may take a while.
        execution_timeout=timedelta(minutes=70),
    )
