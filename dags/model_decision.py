"""
### What a person decided about models

Started by the page *Models* of the catalog, where those who have the right confirm promotions and rollbacks; the page
shows what a decision changes. A run that was started in another way fails.

- **decide** makes a candidate the champion that passed its gates, or has answers come from an earlier version again.
  It starts `catalog_retag`, which answers what the champion has not answered yet.

**Parameter**: `decision`, the number of a row of `catalog.champion_decisions`, which the page stores. It is carried out
once and within a day.

No decision can be made to take what the gates refused. **By hand**: `python -m jobs promote KIND --run RUN`,
`python -m jobs rollback KIND --to VERSION`.
"""

from airflow.sdk import DAG, Param
from catalog_airflow.assets import PROMOTION
from catalog_airflow.defaults import DECISION_DAG, DEFAULT_ARGS
from catalog_airflow.operators import JobOperator

with DAG(
    dag_id=DECISION_DAG,
    description="A person promotes a candidate that passed its gates, or rolls back",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    # Whoever decides second sees what the first decided.
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    params={
        "decision": Param(
            type="integer", minimum=1, title="Decision", description="Stored by the page Models, which starts this DAG"
        ),
    },
    tags=["catalog"],
):
    JobOperator(task_id="decide", command="decide", argument="{{ params.decision }}", outlets=[PROMOTION])
