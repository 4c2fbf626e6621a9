"""
### What a person decided about models

Started from the page *Models* of the catalog, where promoting and rolling back are confirmed; the page shows what a
decision changes. One of the two tasks runs, the other is skipped.

- **promote** makes a candidate the champion that passed its gates, and starts `catalog_retag`.
- **rollback** has answers come from an earlier version again, at once.

**Parameters**: `decision` is "promote" or "rollback", of the `kind` "classifier" or "encoder". A promotion names the
`run` whose candidate it takes, a rollback the version `to` go back to, and the `reason`.

Neither can be made to take what the gates refused. **By hand**: `python -m jobs promote KIND --run RUN`,
`python -m jobs rollback KIND --to VERSION`.
"""

from airflow.sdk import DAG, Param
from catalog_airflow.assets import PROMOTION
from catalog_airflow.defaults import DECISION_DAG, DEFAULT_ARGS
from catalog_airflow.job_operator import JobOperator

# Rendered as texts: what a person wrote must not be taken for a number or a list.
LEFT_OUT = "{{{{ '' if params.decision == '{decision}' else 'decided otherwise' }}}}"
PERSON = "{{ dag_run.triggering_user_name or 'airflow' }}"

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
            "rollback", type="string", enum=["promote", "rollback"], title="Decision", description="What to do"
        ),
        "kind": Param(
            "classifier", type="string", enum=["classifier", "encoder"], title="Kind", description="Of which model"
        ),
        "run": Param("", type="string", title="Run", description="Whose candidate to promote"),
        "to": Param("", type="string", title="Version", description="Which to go back to"),
        "reason": Param("", type="string", maxLength=500, title="Reason", description="Why to go back"),
    },
    tags=["catalog"],
):
    JobOperator(
        task_id="promote",
        command="promote",
        argument="{{ params.kind }}",
        options={"run": "{{ params.run }}", "by": PERSON},
        skip_when=LEFT_OUT.format(decision="promote"),
        outlets=[PROMOTION],
    )
    JobOperator(
        task_id="rollback",
        command="rollback",
        argument="{{ params.kind }}",
        options={"to": "{{ params.to }}", "by": PERSON, "reason": "{{ params.reason }}"},
        skip_when=LEFT_OUT.format(decision="rollback"),
    )
