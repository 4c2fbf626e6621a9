"""
### Bringing the catalog over to new champions

It starts when a promotion is announced. Until its last task switches, answers come from the models before, whole and
unmixed; photos that arrive meanwhile are answered by both.

- **plan_retag** finds what the champions have not answered yet: tags for a new classifier, a new vector space for a
  new encoder. Where there is nothing, the shards are skipped.
- **tag_shard** answers one shard each, like in `catalog_ingest`, behind the photos of the night in the pool
  `catalog_gpu`. It is retried where time cures; *clear it* to go on behind its last chunk.
- **complete_retag** answers what arrived meanwhile, builds the index, reports how far old and new neighbours agree,
  and switches in one transaction, when nothing is missing. It may be repeated.

**By hand**: each task logs its command. The whole flow without Airflow is `python -m jobs retag`; going back is
`python -m jobs rollback KIND`.
"""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule
from catalog_airflow.assets import PROMOTION
from catalog_airflow.defaults import DEFAULT_ARGS, RETAG_PRIORITY, TAGGING_POOL
from catalog_airflow.operators import JobOperator

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}

with DAG(
    dag_id="catalog_retag",
    description="The whole catalog answered by the new champions, then switched at once",
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
    # Skipped shards mean that all is answered: then there is only the switch to make.
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
