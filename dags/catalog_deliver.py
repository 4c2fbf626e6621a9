"""
### Deliver changes of products

Posts each change of what the catalog says about a product to the webhooks in `CATALOG_WEBHOOKS`, signed, in order and
at least once. Enable it if `CATALOG_WEBHOOKS` names webhooks.

- **deliver** posts what is due. A webhook that fails does not delay the others, and the next run tries it again. What
  it does not accept for an hour becomes a dead letter, and the task fails.

**On the command line**: `catalog deliver`, or, to post changes within seconds, `catalog deliver --follow` as a service.
`catalog dead-letters` lists dead letters and sends them again. `catalog changes` prints the same changes for a program
that reads them itself.
"""

from airflow.sdk import DAG
from catalog_airflow.defaults import DEFAULT_ARGS
from catalog_airflow.events import describe_failed_run
from catalog_airflow.notifications import notify
from catalog_airflow.operators import JobOperator
from catalog_airflow.placement import place
from catalog_airflow.schedules import read_schedule

with DAG(
    dag_id="catalog_deliver",
    description="Post changes of products to webhooks",
    doc_md=__doc__,
    # Short runs: a worker with one slot also runs the shards.
    schedule=read_schedule("CATALOG_DELIVER_SCHEDULE", "*/5 * * * *"),
    catchup=False,
    max_active_runs=1,
    # Without webhooks, there is nothing to do.
    is_paused_upon_creation=True,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
    tags=["catalog"],
):
    JobOperator(task_id="deliver", command="deliver")
