"""
### Carry out a decision about a model

The page *Models* of the catalog starts this DAG when a person confirms a promotion or a rollback. The page shows the
effects of the decision. A run that was started in any other way fails.

- **decide** promotes a candidate that passed its gates, or rolls back to an earlier version. It starts `catalog_retag`,
  which processes the images that the champion has not processed yet.

**Parameter**: `decision` is the id of a row in `catalog.champion_decisions`, which the page stores. A decision is
carried out once, and only within a day.

A candidate that failed its gates cannot be promoted. **On the command line**: `catalog promote KIND --run RUN`,
`catalog rollback KIND --to VERSION`.
"""

from airflow.sdk import DAG, Param
from catalog_airflow.defaults import DECISION_DAG, DEFAULT_ARGS
from catalog_airflow.events import describe_failed_run, describe_promotion
from catalog_airflow.notifications import notify
from catalog_airflow.operators import PROMOTION, JobOperator
from catalog_airflow.placement import place

with DAG(
    dag_id=DECISION_DAG,
    description="Promote a candidate that passed its gates, or roll back",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    # The second of two decisions must see the result of the first.
    max_active_runs=1,
    on_failure_callback=notify(describe_failed_run),
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS | place("plan"),
    params={
        "decision": Param(
            type="integer", minimum=1, title="Decision", description="Id of a decision that the page Models has stored"
        ),
    },
    tags=["catalog"],
):
    JobOperator(
        task_id="decide",
        command="decide",
        argument="{{ params.decision }}",
        outlets=[PROMOTION],
        on_success_callback=notify(describe_promotion),
    )
