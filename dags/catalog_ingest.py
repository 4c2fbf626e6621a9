"""
### Nightly ingestion

Predicts a category and computes a vector for every new or changed image in the bucket. Deleted images disappear from
all results. Unchanged images are not read again unless the models have changed. Runs on `CATALOG_INGEST_SCHEDULE`, by
default every night at 2.

- **discover** compares the bucket with the catalog, looks up the live models and writes the manifest. It fails, and
  changes nothing, if too many images have vanished at once.
- **tag_shard** tags one shard per mapped task, in the pool `catalog_gpu`, and commits chunk by chunk. Temporary errors
  are retried. Clear a failed task to resume it after its last committed chunk.
- **publish** updates the product tags and the live space, and indexes the vectors of a new space. It can be repeated
  safely.
- **report** summarizes the run. The report is in its XCom and its log. It fails if too many images failed or a shard is
  unfinished. All results up to then are already stored.
- **draw_map** draws the map of the catalog again if its images have changed. If it fails, the old map stays, and the
  run succeeds anyway.
- **announce_drift** starts `model_retrain` if the tags of this run have drifted from the reference of the live
  classifier, at most once a week per classifier. Otherwise it is skipped. It does not run after a failed report: the
  failure has to be resolved first.

**Parameters**: `source` is an `s3://bucket/prefix` below `CATALOG_SOURCE_URI` or in `CATALOG_OTHER_SOURCES`. `limit` is
the maximum number of images. `force` tags unchanged images again. `plan_only` writes nothing: the XCom `report` of
`discover` shows what a run would do.

**On the command line**: each task logs its command, `python -m jobs ...`, which you can run again in a shell. To run
the whole flow without Airflow, use `catalog ingest`. To count failed images by reason, run
`SELECT * FROM catalog.item_failure_summary`.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule
from catalog_airflow.defaults import DEFAULT_ARGS, INGEST_PRIORITY
from catalog_airflow.events import describe_drift, describe_failed_run, describe_stuck_retag
from catalog_airflow.notifications import notify
from catalog_airflow.operators import DRIFT, AnnouncementOperator, JobOperator
from catalog_airflow.placement import place
from catalog_airflow.schedules import read_schedule

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
    schedule=read_schedule("CATALOG_INGEST_SCHEDULE", "0 2 * * *"),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    default_args=DEFAULT_ARGS | place("plan"),
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
        **place("tag"),
        priority_weight=INGEST_PRIORITY,
        execution_timeout=timedelta(hours=6),
    ).expand(argument=discover.output)
    # Runs even if a shard failed, to publish the others, and even if there are no shards and tag_shard is skipped. If
    # discover failed, there is no plan, and publish fails too.
    publish = JobOperator(
        task_id="publish",
        command="publish",
        options=RUN,
        skip_when="{{ params.plan_only }}",
        trigger_rule=TriggerRule.ALL_DONE,
        # The first index and the codes of a large catalog.
        execution_timeout=timedelta(hours=6),
    )
    report = JobOperator(
        task_id="report", command="report", options=RUN, on_success_callback=notify(describe_stuck_retag)
    )

    # A teardown, so its failure does not fail the run.
    draw_map = JobOperator(
        task_id="draw_map", command="map", options=RUN, skip_when="{{ params.plan_only }}"
    ).as_teardown()

    announce_drift = AnnouncementOperator(
        task_id="announce_drift",
        skip_when="{{ not ti.xcom_pull(task_ids='report')['requests_retraining'] }}",
        outlets=[DRIFT],
        on_success_callback=notify(describe_drift),
    )

    discover >> tag_shard >> publish >> report >> announce_drift
    publish >> draw_map
    # With plan_only, the last tasks are skipped. Without these edges, a failed discover would not fail the run.
    discover >> [publish, report]
