"""
### Retag the catalog with new champions

Starts after a promotion. All results come from the previous models until the last task switches to the new ones. Images
that arrive in the meantime are tagged by both.

- **plan_retag** finds the images that a champion has not processed yet. A new classifier needs tags, and a new encoder
  needs a new vector space. If there are no such images, the shards are skipped.
- **tag_shard** processes one shard per mapped task as in `catalog_ingest`, in the pool `catalog_gpu`, with a lower
  priority than the nightly run. Temporary errors are retried. Clear a failed task to resume it after its last committed
  chunk.
- **complete_retag** processes the images that arrived in the meantime, builds the index, and reports the agreement of
  old and new neighbors. When no result is missing, it switches in one transaction. It can be repeated safely.
- **draw_map** draws the map of the live space if its images have changed. If it fails, the run succeeds anyway.

**On the command line**: each task logs its command. To run the whole flow without Airflow, use `catalog retag`.
To return to the previous model, use `catalog rollback KIND`.
"""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule
from catalog_airflow.defaults import DEFAULT_ARGS, RETAG_PRIORITY
from catalog_airflow.events import describe_failed_run, describe_retag
from catalog_airflow.notifications import notify
from catalog_airflow.operators import PROMOTION, JobOperator
from catalog_airflow.placement import place

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}

with DAG(
    dag_id="catalog_retag",
    description="Tag the whole catalog with new champions, then switch at once",
    doc_md=__doc__,
    schedule=[PROMOTION],
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
    render_template_as_native_obj=True,
    tags=["catalog"],
):
    plan_retag = JobOperator(task_id="plan_retag", command="plan-retag", options=RUN, returned_field="shards")
    tag_shard = JobOperator.partial(
        task_id="tag_shard",
        command="tag-shard",
        options=RUN,
        **place("tag"),
        priority_weight=RETAG_PRIORITY,
        execution_timeout=timedelta(hours=6),
    ).expand(argument=plan_retag.output)
    # If the shards are skipped, every image has been processed, and only the switch remains.
    complete_retag = JobOperator(
        task_id="complete_retag",
        command="complete-retag",
        options=RUN,
        **place("tag"),
        priority_weight=RETAG_PRIORITY,
        execution_timeout=timedelta(hours=6),
        trigger_rule=TriggerRule.NONE_FAILED,
        on_success_callback=notify(describe_retag),
    )

    # A teardown, so its failure does not fail the run.
    draw_map = JobOperator(task_id="draw_map", command="map", options=RUN).as_teardown()

    plan_retag >> tag_shard >> complete_retag >> draw_map
