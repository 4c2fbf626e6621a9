"""
### Nightly ingestion

Every new or changed image in the bucket gets a category and a vector. Images that were deleted disappear from all
results. Unchanged images are not read again unless the models have changed.

- **discover** compares the bucket with the catalog, looks up the live models and writes the manifest. It fails, without
  any changes, if too many images have vanished at once.
- **tag_shard** tags one shard per mapped task, in the pool `catalog_gpu`, and commits chunk by chunk. Temporary errors
  are retried. *Clear it* to resume after the last committed chunk.
- **publish** updates product tags, vector index and live space. It can be repeated safely.
- **report** adds up the run. The report is its XCom and in its log. It fails if too many images failed or a shard is
  unfinished; everything that was tagged is already stored.
- **announce_drift** starts `model_retrain` if the images of this run differ from those that the live classifier was
  accepted on, at most once a week for one classifier. Otherwise it is skipped. After a failed report it does not run:
  look at the failure first.

**Parameters**: `source` is an `s3://bucket/prefix` below `CATALOG_SOURCE_URI` or in `CATALOG_OTHER_SOURCES`. `limit` is
the maximum number of images. `force` tags unchanged images again. `plan_only` writes nothing: the XCom `report` of
`discover` shows what a run would do.

**On the command line**: each task logs its command, `python -m jobs ...`, which you can repeat in a shell. The whole
flow without Airflow is `python -m jobs ingest`. To list failed images: `SELECT * FROM catalog.item_failure_summary`.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule
from catalog_airflow.defaults import DEFAULT_ARGS, INGEST_PRIORITY, TAGGING_POOL
from catalog_airflow.operators import DRIFT, AnnouncementOperator, JobOperator

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}
PARAMS = {
    "source": Param(
        None,
        type=["null", "string"],
        pattern="^s3://.+",
        title="Source",
        description="s3://bucket/prefix below CATALOG_SOURCE_URI (the default) or in CATALOG_OTHER_SOURCES",
    ),
    "limit": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Limit",
        description="Maximum number of images. Default: all that are due",
    ),
    "force": Param(False, type="boolean", title="Force", description="Tag unchanged images again"),
    "plan_only": Param(
        False, type="boolean", title="Plan only", description="Report what a run would do, and write nothing"
    ),
}

with DAG(
    dag_id="catalog_ingest",
    description="Tag and embed every new product image",
    doc_md=__doc__,
    # No start date, so enabling the DAG does not trigger a backfill.
    schedule="0 2 * * *",
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    render_template_as_native_obj=True,
    tags=["catalog"],
):
    discover = JobOperator(
        task_id="discover",
        command="discover",
        options=RUN
        | {
            "source": "{{ params.source }}",
            "limit": "{{ params.limit }}",
            "force": "{{ params.force }}",
            "plan": "{{ params.plan_only }}",
        },
        returned_field="shards",
    )
    tag_shard = JobOperator.partial(
        task_id="tag_shard",
        command="tag-shard",
        options=RUN,
        pool=TAGGING_POOL,
        priority_weight=INGEST_PRIORITY,
        execution_timeout=timedelta(hours=6),
    ).expand(argument=discover.output)
    # Runs after failed shards, so the others are published, and after a run without shards, whose tag_shard is skipped.
    # If discover failed there is no plan, and publish fails too.
    publish = JobOperator(
        task_id="publish",
        command="publish",
        options=RUN,
        skip_when="{{ params.plan_only }}",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    report = JobOperator(task_id="report", command="report", options=RUN)

    announce_drift = AnnouncementOperator(
        task_id="announce_drift",
        skip_when="{{ not ti.xcom_pull(task_ids='report')['asks_for_retraining'] }}",
        outlets=[DRIFT],
    )

    discover >> tag_shard >> publish >> report >> announce_drift
    # With plan_only the last tasks are skipped, so a failed discover must fail the run through these edges.
    discover >> [publish, report]
