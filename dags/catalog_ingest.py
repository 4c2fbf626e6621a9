"""
### Nightly ingestion

Every new or changed photo of the bucket gets its category and its vector; photos that vanished leave every
answer. Unchanged photos under unchanged models cost nothing.

- **discover** compares the bucket with the catalog, resolves the live models and writes the manifest. It fails when
  too many images vanished at once; nothing was changed then.
- **tag_shard** tags one shard each, in the pool `catalog_gpu`, and commits chunk by chunk. It is retried where
  time cures; *clear it* to go on behind its last chunk.
- **publish** renews product tags, vector index and live space. It is harmless to repeat.
- **report** adds the run up; its XCom and log are the report. It fails when too many images failed or a shard is
  unfinished; all that was tagged is saved by then.
- **announce_drift** starts `model_retrain` when the photos of this run look unlike those that the live classifier was
  accepted on, at most once a week for one classifier; as long as they do not, it is skipped. A run that counts as
  failed announces nothing: look at it first.

**Parameters**: `source`, an `s3://bucket/prefix` below `CATALOG_SOURCE_URI` or in `CATALOG_OTHER_SOURCES`; `limit`, at
most so many images; `force`, tag known bytes again; `plan_only`, say what would be done in the XCom `report` of
`discover` and write nothing.

**By hand**: each task logs its command, `python -m jobs ...`, which can be run again in a shell. The whole flow
without Airflow is `python -m jobs ingest`. Failed images: `SELECT * FROM catalog.item_failure_summary`.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule
from catalog_airflow.assets import DRIFT
from catalog_airflow.defaults import DEFAULT_ARGS, INGEST_PRIORITY, TAGGING_POOL
from catalog_airflow.operators import AnnouncementOperator, JobOperator

RUN = {"run": "{{ dag.dag_id }}/{{ run_id }}"}
PARAMS = {
    "source": Param(
        None,
        type=["null", "string"],
        pattern="^s3://.+",
        title="Source",
        description="s3://bucket/prefix, below CATALOG_SOURCE_URI or in CATALOG_OTHER_SOURCES; empty: the former",
    ),
    "limit": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Limit",
        description="At most this many images; empty: all that are due",
    ),
    "force": Param(False, type="boolean", title="Force", description="Tag everything again, known bytes included"),
    "plan_only": Param(
        False, type="boolean", title="Plan only", description="Say what would be done and why; write nothing"
    ),
}

with DAG(
    dag_id="catalog_ingest",
    description="Every new product photo gets its category and its vector",
    doc_md=__doc__,
    # No start date: no night before the DAG was switched on is made up for.
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
    # A shard that failed must not keep the others from being found, nor the run from being judged; nor must a run
    # without shards, whose tag_shard is skipped, go without a report. Without a plan publish fails by itself.
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
    # A run of which only the plan was wanted ends in skipped tasks, and would look well though discover failed.
    discover >> [publish, report]
