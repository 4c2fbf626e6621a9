"""
### Retag the catalog with new champions

Starts after a promotion. Until the last task switches, all results come from the previous models; images that arrive
meanwhile are tagged by both.

- **plan_retag** finds the images that a champion has not processed yet: tags for a new classifier, a new vector space
  for a new encoder. If there are none, the shards are skipped.
- **tag_shard** processes one shard per mapped task as in `catalog_ingest`, in the pool `catalog_gpu`, with a lower
  priority than the nightly run. Temporary errors are retried. *Clear it* to resume after the last committed chunk.
- **complete_retag** processes the images that arrived meanwhile, builds the index, reports how far old and new
  neighbors agree, and switches in one transaction once nothing is missing. It can be repeated safely.

**On the command line**: each task logs its command. The whole flow without Airflow is `python -m jobs retag`. To
go back to the previous model: `python -m jobs rollback KIND`.
"""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule
from catalog_airflow.defaults import DEFAULT_ARGS, RETAG_PRIORITY, TAGGING_POOL
from catalog_airflow.operators import PROMOTION, JobOperator

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}

with DAG(
    dag_id="catalog_retag",
    description="Tag the whole catalog with new champions, then switch at once",
    doc_md=__doc__,
    schedule=[PROMOTION],
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    render_template_as_native_obj=True,
    tags=["catalog"],
):
    plan_retag = JobOperator(task_id="plan_retag", command="plan-retag", options=RUN, returned_field="shards")
    tag_shard = JobOperator.partial(
        task_id="tag_shard",
        command="tag-shard",
        options=RUN,
        pool=TAGGING_POOL,
        priority_weight=RETAG_PRIORITY,
        execution_timeout=timedelta(hours=6),
    ).expand(argument=plan_retag.output)
    # Skipped shards mean that every image is processed. Then only the switch is left.
    complete_retag = JobOperator(
        task_id="complete_retag",
        command="complete-retag",
        options=RUN,
        pool=TAGGING_POOL,
        priority_weight=RETAG_PRIORITY,
        execution_timeout=timedelta(hours=6),
        trigger_rule=TriggerRule.NONE_FAILED,
    )

    plan_retag >> tag_shard >> complete_retag
