"""Run the gate task of `model_retrain` without training."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param
from catalog_airflow.operators import GateOperator

with DAG("judge", schedule=None, params={"run": Param("", type="string")}):
    gate = GateOperator(
        task_id="gate", command="gate", argument="classifier", options={"run": "{{ params.run }}"}, retries=3
    )
    gate >> EmptyOperator(task_id="promote")
